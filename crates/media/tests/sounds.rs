//! What becomes of the sounds in `fixtures/media`, and of hostile ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mistralrs_media::{Audio, AudioOptions, Interest, Limits, MediaError, decode_audio};

fn read(name: &str) -> Vec<u8> {
    std::fs::read(fixtures::root().join("media").join(name)).unwrap()
}

fn decode(bytes: Vec<u8>) -> Result<Audio, MediaError> {
    decode_audio(bytes, &AudioOptions::default(), &Limits::default(), &Interest::default())
}

/// A WAV file. `tag` is the format: 1 for whole numbers, 3 for floats.
fn wav(tag: u16, bits: u16, channels: u16, rate: u32, data: &[u8]) -> Vec<u8> {
    let block = (bits / 8).wrapping_mul(channels);
    let mut out = b"RIFF".to_vec();
    out.extend((36 + data.len() as u32).to_le_bytes());
    out.extend(b"WAVEfmt \x10\0\0\0");
    out.extend([tag, channels].map(u16::to_le_bytes).concat());
    out.extend([rate, rate.wrapping_mul(block.into())].map(u32::to_le_bytes).concat());
    out.extend([block, bits].map(u16::to_le_bytes).concat());
    out.extend(b"data");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

fn rms(samples: &[f32]) -> f64 {
    (samples.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
}

#[test]
fn samples_are_those_of_the_reference() {
    // Rate and number of samples; those at the quarters, and the root of their mean square.
    let cases = [
        ("speech_16k.wav", 16_000, 40_000, [-0.074066, -0.100281, 0.010284], 0.084372),
        ("speech_22k_float.wav", 22_050, 39_690, [0.088488, -0.033784, -0.015186], 0.079128),
        ("speech_24k.mp3", 24_000, 52_800, [0.065766, 0.036389, 0.00743], 0.063102),
        ("speech_32k.ogg", 32_000, 64_000, [0.156802, -0.010958, -0.000719], 0.04539),
        ("speech_44k_stereo.wav", 44_100, 88_200, [-0.008514, 0.03598, -0.000443], 0.039622),
        ("speech_48k.flac", 48_000, 72_000, [0.045685, -0.072021, 0.027771], 0.059017),
        ("speech_8k.wav", 8_000, 13_600, [-0.049988, -0.053802, -0.031036], 0.081216),
        ("speech_short_16k.wav", 16_000, 16_000, [-0.023407, 0.038483, -0.03537], 0.081168),
    ];
    for (name, rate, count, quarters, level) in cases {
        let Audio { samples, rate: found } = decode(read(name)).unwrap();
        assert_eq!((found, samples.len()), (rate, count), "{name}");
        for (i, expected) in quarters.into_iter().enumerate() {
            let sample = samples[count * (i + 1) / 4];
            assert!((sample - expected).abs() < 2e-6, "{name}: {sample} is not {expected}");
        }
        assert!((rms(&samples) - level).abs() < 2e-6, "{name}: {}", rms(&samples));
    }
}

#[test]
fn one_sound_in_many_formats() {
    let expected = decode(read("speech_short_16k.wav")).unwrap().samples;
    // How many samples the sound comes late (encoders begin with some of their own), and how much of it is something else.
    let cases = [
        ("short_aac.m4a", 1024, 0.2),
        ("short_adpcm.wav", 0, 0.1),
        ("short_adts.aac", 1024, 0.2),
        ("short_alac.m4a", 0, 0.0),
        ("short_alaw.wav", 0, 0.03),
        ("short_big_endian.aiff", 0, 0.0),
        ("short_mp2.mp2", 481, 0.2),
        ("short_mulaw.wav", 0, 0.03),
        ("short_opus.ogg", 0, 0.4),
        ("short_opus.webm", 0, 0.4),
        ("short_wavpack.wv", 0, 0.0),
    ];
    for (name, late, error) in cases {
        let found = match decode(read(name)) {
            Err(MediaError::NoFfmpeg { .. }) => {
                println!("SKIPPED {name}: the ffmpeg program is missing");
                continue;
            }
            found => found.unwrap().resampled(16_000).samples,
        };
        let difference: Vec<f32> = found[late..].iter().zip(&expected).map(|(a, b)| a - b).collect();
        let share = rms(&difference) / rms(&expected);
        assert!(share <= error, "{name}: {share:.3} of it is something else");
        assert!(found.len().abs_diff(expected.len()) < 2500, "{name}: {} samples", found.len());
    }
}

#[test]
fn a_clip_has_a_sound() {
    let whole = decode(read("speech_16k.wav")).unwrap();
    let found = decode(read("talk_112x112_8fps.mp4")).unwrap();
    assert!((found.seconds() - whole.seconds()).abs() < 0.2, "{} s", found.seconds());
    let share = rms(&found.samples) / rms(&whole.samples);
    assert!((0.9..1.1).contains(&share), "{share} as loud");
}

#[test]
fn numbers_of_all_widths() {
    let bytes = |value: i64, width: usize| value.to_le_bytes()[..width].to_vec();
    // A half, and then minus a quarter, in one channel.
    let cases = [
        (1, 8, [vec![0xC0], vec![0x60]].concat()),
        (1, 16, [bytes(1 << 14, 2), bytes(-(1 << 13), 2)].concat()),
        (1, 24, [bytes(1 << 22, 3), bytes(-(1 << 21), 3)].concat()),
        (1, 32, [bytes(1 << 30, 4), bytes(-(1 << 29), 4)].concat()),
        (3, 32, [0.5f32, -0.25].map(f32::to_le_bytes).concat()),
        (3, 64, [0.5f64, -0.25].map(f64::to_le_bytes).concat()),
    ];
    for (tag, bits, data) in cases {
        let found = decode(wav(tag, bits, 1, 16_000, &data.repeat(50))).unwrap();
        assert_eq!(found.samples, [0.5, -0.25].repeat(50), "{bits} bits, format {tag}");
        // As the channels of one moment, they are an eighth.
        let stereo = decode(wav(tag, bits, 2, 16_000, &data.repeat(50))).unwrap();
        assert_eq!(stereo.samples, [0.125; 50], "{bits} bits, format {tag}, stereo");
    }
    let eight = decode(wav(1, 16, 8, 192_000, &bytes(1 << 14, 2).repeat(800))).unwrap();
    assert_eq!((eight.samples, eight.rate), (vec![0.5; 100], 192_000));
}

#[test]
fn what_is_no_sound_is_refused_in_one_line() {
    let silence = [0; 400];
    let with = |at: usize, bytes: &[u8]| {
        let mut file = wav(1, 16, 1, 16_000, &silence);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let floats = |value: f32| wav(3, 32, 1, 16_000, &[0.0, value, 0.5].map(f32::to_le_bytes).concat());
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "not audio"),
        ("text", b"hello there, how are you".to_vec(), "not audio"),
        ("PNG", read("photo_64x64.png"), "not audio"),
        ("JPEG", read("photo_200x150.jpg"), "not audio"),
        ("GIF", read("animated_64x48.gif"), "not audio"),
        ("WebP", read("lossy_130x96.webp"), "not audio"),
        ("playlist", b"#EXTM3U\n/etc/passwd\n".to_vec(), "not audio"),
        ("zeros", vec![0; 4096], "not audio"),
        ("wrong RIFF", with(0, b"RAFF"), "not audio"),
        ("no format", with(12, b"fact"), ""),
        ("no data", wav(1, 16, 1, 16_000, &silence)[..36].to_vec(), ""),
        ("no samples", wav(1, 16, 1, 16_000, &[]), ""),
        ("no rate", wav(1, 16, 1, 0, &silence), ""),
        ("no channels", wav(1, 16, 0, 16_000, &silence), ""),
        ("no bits", wav(1, 0, 1, 16_000, &silence), ""),
        ("17 bits", wav(1, 17, 1, 16_000, &silence), ""),
        ("slow", wav(1, 16, 1, 999, &silence), "sample rate is 999 Hz"),
        ("fast", wav(1, 16, 1, 655_350, &silence), "sample rate is 655350 Hz"),
        ("faster", wav(1, 16, 1, u32::MAX, &silence), ""),
        ("9 channels", wav(1, 16, 9, 16_000, &[0; 900]), "9 channels; at most 8"),
        ("65535 channels", wav(1, 16, u16::MAX, 16_000, &silence), ""),
        ("unknown", wav(0x1234, 16, 1, 16_000, &silence), ""),
        ("no number", floats(f32::NAN), "damaged"),
        ("infinite", floats(f32::INFINITY), "damaged"),
        ("FLAC header", read("speech_48k.flac")[..60].to_vec(), ""),
        ("OGG header", read("speech_32k.ogg")[..100].to_vec(), ""),
        ("MP3 header", read("speech_24k.mp3")[..10].to_vec(), ""),
        ("M4A header", read("short_aac.m4a")[..40].to_vec(), ""),
        ("clip without sound", read("motion_128x96_12fps.mp4"), ""),
        ("clip without sound", read("motion_96x160_10fps.webm"), ""),
    ];
    for (name, bytes, expected) in cases {
        let message = decode(bytes).expect_err(name).to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{name}: {message}");
    }
}

#[test]
fn sizes_that_lie_do_no_harm() {
    let mut endless = wav(1, 16, 1, 16_000, &[0; 400]);
    endless[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    endless[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(endless).unwrap().samples.len(), 200, "a stream does not know its length");
    let half = wav(1, 16, 1, 16_000, &[0; 400]);
    assert_eq!(decode(half[..244].to_vec()).unwrap().samples.len(), 100);
}

/// M8 of docs/reliability.md.
#[test]
fn sounds_keep_to_the_limits() {
    let base = Limits::default();
    let refused = |name: &str, options: AudioOptions, limits: Limits| {
        decode_audio(read(name), &options, &limits, &Interest::default()).expect_err(name).to_string()
    };
    let none = AudioOptions::default();
    let late = AudioOptions { start: Some(1.5), end: None };
    let cases = [
        (none, Limits { audio_seconds_max: 1, ..base }, "over 1 s long; at most 1 s"),
        (late, Limits { audio_skipped_seconds_max: 1, ..base }, "what start leaves out is over 1 s long"),
        (none, Limits { audio_bytes_max: 1000, ..base }, "decoded"),
        (none, Limits { audio_channels_max: 0, ..base }, "at most 0 channels"),
        (AudioOptions { start: Some(99.0), end: None }, base, "start is 99 s, but the sound is"),
        (AudioOptions { start: Some(-1.0), end: None }, base, "start must be"),
        (AudioOptions { start: Some(1.0), end: Some(1.0) }, base, "end must be"),
    ];
    for name in ["speech_44k_stereo.wav", "speech_24k.mp3", "speech_32k.ogg", "short_opus.ogg"] {
        for (options, limits, expected) in cases {
            if name.starts_with("short") && (options == late || limits.audio_seconds_max == 1) {
                continue;
            }
            let message = refused(name, options, limits);
            assert!(message.contains(expected) || message.contains("ffmpeg program"), "{name}: {message}");
        }
    }
    let interest = Interest::default();
    interest.lose();
    for name in ["speech_16k.wav", "short_opus.ogg"] {
        let lost = decode_audio(read(name), &none, &base, &interest);
        assert!(matches!(lost, Err(MediaError::Abandoned | MediaError::NoFfmpeg { .. })), "{name}: {lost:?}");
    }
}

#[test]
fn a_part_is_what_is_heard_in_the_meantime() {
    for name in ["speech_44k_stereo.wav", "speech_24k.mp3", "speech_48k.flac", "speech_32k.ogg"] {
        let whole = decode(read(name)).unwrap();
        for (start, end) in [(None, Some(0.5)), (Some(0.5), None), (Some(0.25), Some(1.0)), (Some(1.0), Some(99.0))] {
            let options = AudioOptions { start, end };
            let part = decode_audio(read(name), &options, &Limits::default(), &Interest::default()).unwrap();
            let at = |seconds: f64| ((seconds * f64::from(whole.rate)).round() as usize).min(whole.samples.len());
            let expected = &whole.samples[at(start.unwrap_or(0.0))..at(end.unwrap_or(1e6))];
            assert_eq!(part.samples, expected, "{name}, {options:?}");
        }
    }
}

/// M9 of docs/reliability.md.
#[test]
fn cut_and_flipped_sounds_never_panic() {
    let mut random = fastrand::Rng::with_seed(1);
    for entry in std::fs::read_dir(fixtures::root().join("media")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_native = !name.contains("opus") && !name.ends_with("wv");
        if !(name.starts_with("short") || name.starts_with("speech")) || !is_native {
            continue;
        }
        let bytes = read(&name);
        for _ in 0..8 {
            let mut spoiled = bytes[..random.usize(0..bytes.len())].to_vec();
            let _ = decode(spoiled);
            spoiled = bytes.clone();
            for _ in 0..20 {
                // Headers are where mistakes do most harm.
                let end = if random.bool() { spoiled.len().min(200) } else { spoiled.len() };
                let at = random.usize(0..end);
                spoiled[at] = random.u8(..);
            }
            if let Ok(audio) = decode(spoiled) {
                assert!(audio.samples.iter().all(|sample| sample.is_finite()), "{name}");
            }
        }
    }
}
