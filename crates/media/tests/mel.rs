//! What front ends make of a sound, beside what the reference's make of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mistralrs_media::mel::{Edges, Emphasis, Log, Mel, MelConfig, MelScale, Spectrum, Window};
use mistralrs_media::{AudioOptions, Interest, Limits, decode_audio};

#[test]
fn front_ends_are_those_of_the_reference() {
    let whisper = MelConfig {
        rate: 16_000,
        frame: 400,
        hop: 160,
        fft: 400,
        window: Window::Hann,
        edges: Edges::Mirrored,
        emphasis: Emphasis::Absent,
        spectrum: Spectrum::Power,
        bands: 80,
        hertz: [0.0, 8000.0],
        scale: MelScale::Slaney,
        log: Log::Ten { floor: 1e-10 },
    };
    let universal = MelConfig {
        frame: 512,
        fft: 1024,
        window: Window::Hann,
        edges: Edges::Silent { before: 0 },
        emphasis: Emphasis::Within(0.97),
        spectrum: Spectrum::Magnitude,
        bands: 128,
        hertz: [125.0, 7600.0],
        scale: MelScale::Htk,
        log: Log::Natural { floor: 1e-5 },
        ..whisper.clone()
    };
    let later = MelConfig {
        frame: 320,
        fft: 512,
        window: Window::Hann,
        edges: Edges::Silent { before: 160 },
        emphasis: Emphasis::Absent,
        hertz: [0.0, 8000.0],
        log: Log::NaturalAbove { floor: 1e-3 },
        ..universal.clone()
    };
    // Number of frames; some of them, some bands, and the loudness of those.
    let cases = [
        (
            whisper,
            101,
            [0, 50, 100],
            [0, 20, 50, 79],
            [
                [-1.2293, -3.79481, -5.82038, -7.10181],
                [-2.63312, -0.09839, -1.0994, -5.84621],
                [-1.89112, -3.03889, -5.20835, -6.5003],
            ],
        ),
        (
            universal,
            97,
            [0, 50, 96],
            [0, 40, 90, 120],
            [
                [-2.13325, -3.21744, -1.14714, -2.22667],
                [-3.79678, -2.43274, 1.5143, -2.75337],
                [-8.08856, -9.48251, -7.63064, -6.16064],
            ],
        ),
        (
            later,
            99,
            [0, 50, 96],
            [0, 40, 90, 120],
            [
                [-6.90776, -3.4062, -4.98594, -5.24194],
                [-6.90776, -0.1316, 0.65352, -2.14465],
                [-6.90776, -6.25292, -6.75187, -6.49893],
            ],
        ),
    ];
    let file = std::fs::read(fixtures::root().join("media/speech_short_16k.wav")).unwrap();
    let audio = decode_audio(file, &AudioOptions::default(), &Limits::default(), &Interest::default()).unwrap();
    for (config, count, frames, bands, expected) in cases {
        let found = Mel::new(config.clone()).spectrogram(&audio.samples);
        assert_eq!(found.frames(), count, "{config:?}");
        for (frame, expected) in frames.into_iter().zip(expected) {
            for (band, expected) in bands.into_iter().zip(expected) {
                let level = found.values[frame * config.bands + band];
                // The reference transforms in f32, which near silence is a little off.
                assert!((level - expected).abs() < 3e-4, "frame {frame}, band {band}: {level} is not {expected}; {config:?}");
            }
        }
    }
}
