//! What the reference sees in every file of `fixtures/media`, and what becomes of hostile bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use mistralrs_media::{Filter, Image, Interest, Limits, MediaError, Timing, Video, VideoInfo, VideoOptions, decode_image};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn read(url: &str) -> Vec<u8> {
    std::fs::read(fixtures::root().join(url)).unwrap()
}

/// The entries of `media` in the expectations of all cases, by URL.
fn expected() -> BTreeMap<String, Value> {
    let entries = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found = BTreeMap::new();
    for name in fixtures::names().unwrap() {
        for case in entries(fixtures::root().join(name).join("cases")) {
            let expected: Value = serde_json::from_slice(&std::fs::read(case.join("expected.json")).unwrap()).unwrap();
            for item in expected["media"].as_array().into_iter().flatten() {
                found.insert(item["url"].as_str().unwrap().to_string(), item.clone());
            }
        }
    }
    found
}

fn frames(video: &Video, indices: &[usize]) -> Result<Vec<Image>, MediaError> {
    video.clip(&VideoOptions::default(), |_| indices.to_vec())?.each(Ok)
}

fn check(url: &str, frames: &[Image], expected: &Value) {
    let size = (frames[0].width() as u64, frames[0].height() as u64);
    assert_eq!(size, (expected["width"].as_u64().unwrap(), expected["height"].as_u64().unwrap()), "{url}");
    let mut hash = Sha256::new();
    frames.iter().for_each(|frame| hash.update(frame.rgb()));
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected["rgb_sha256"].as_str().unwrap(), "{url}");
}

#[test]
fn pixels_are_those_of_the_reference() {
    let (mut pictures, mut clips) = (0, 0);
    for (url, expected) in expected() {
        match expected["kind"].as_str().unwrap() {
            "image" => {
                check(&url, &[decode_image(&read(&url), &Limits::default()).unwrap()], &expected);
                pictures += 1;
            }
            "video" => {
                let video = match Video::open(read(&url), &Limits::default()) {
                    Err(MediaError::NoFfmpeg { .. }) => {
                        println!("SKIPPED {url}: the ffmpeg program is missing");
                        continue;
                    }
                    video => video.unwrap(),
                };
                let info = video.info();
                assert_eq!(info.frames as u64, expected["total_num_frames"].as_u64().unwrap(), "{url}");
                assert!((info.fps - expected["fps"].as_f64().unwrap()).abs() < 1e-9, "{url}");
                let all: Vec<usize> = (0..info.frames).collect();
                check(&url, &frames(&video, &all).unwrap(), &expected);
                clips += 1;
            }
            _ => {}
        }
    }
    assert!(pictures >= 10, "{pictures} pictures, {clips} clips");
}

/// A PNG that promises a size and begins its pixels; the rest of it is missing.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let crc = !header.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    [b"\x89PNG\r\n\x1a\n\0\0\0\r".to_vec(), header, crc.to_be_bytes().to_vec(), b"\0\0\0\x09IDAT\x78".to_vec()].concat()
}

fn gif(width: u16, height: u16) -> Vec<u8> {
    [b"GIF89a".to_vec(), width.to_le_bytes().to_vec(), height.to_le_bytes().to_vec(), vec![0, 0, 0]].concat()
}

fn bmp(width: i32, height: i32) -> Vec<u8> {
    let mut out = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    out.extend(width.to_le_bytes());
    out.extend(height.to_le_bytes());
    out.extend(b"\x01\0\x18\0");
    out.resize(54, 0);
    out
}

/// M1, M4 of docs/reliability.md.
#[test]
fn hostile_pictures_are_refused_in_one_line_before_anything_is_allocated() {
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "not an image"),
        ("text", b"hello".to_vec(), "not an image"),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), "not an image"),
        ("PDF", b"%PDF-1.7".to_vec(), "not an image"),
        ("ELF", b"\x7fELF\x02\x01\x01".to_vec(), "not an image"),
        ("zeros", vec![0; 4096], "not an image"),
        ("PNM", b"P6 99999 99999 255\n".to_vec(), "not an image"),
        ("HDR", b"#?RADIANCE\n-Y 99999 +X 99999\n".to_vec(), "not an image"),
        ("farbfeld", b"farbfeld\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "not an image"),
        ("QOI", b"qoif\xff\xff\xff\xff\xff\xff\xff\xff\x04\0".to_vec(), "not an image"),
        ("ICO", b"\0\0\x01\0\x01\0".to_vec(), "not an image"),
        ("clip", read("media/motion_128x96_12fps.mp4"), "not an image"),
        ("PNG 0", png(0, 10), "damaged"),
        ("PNG 30000", png(30_000, 30_000), "at most"),
        ("PNG 20000", png(20_000, 20_000), "at most"),
        ("PNG area", png(16_000, 16_000), "64000000 pixels in all"),
        ("PNG strip", png(40_000, 2), "16384 pixels a side"),
        ("PNG 2^31", png(1 << 31, 1 << 31), ""),
        ("PNG 2^32", png(u32::MAX, u32::MAX), ""),
        ("PNG header", png(10, 10), "damaged"),
        ("GIF 65535", gif(65_535, 65_535), ""),
        ("GIF header", gif(10, 10), "damaged"),
        ("BMP -2^31", bmp(10, i32::MIN), ""),
        ("BMP 2^30", bmp(1 << 30, 1 << 30), ""),
    ];
    for (name, bytes, expected) in cases {
        let message = decode_image(&bytes, &Limits::default()).expect_err(name).to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{name}: {message}");
    }
}

/// M2 of docs/reliability.md.
#[test]
fn cut_and_flipped_pictures_never_panic() {
    let mut random = fastrand::Rng::with_seed(1);
    for entry in std::fs::read_dir(fixtures::root().join("media")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let Ok(whole) = decode_image(&bytes, &Limits::default()) else { continue };
        for _ in 0..8 {
            let mut spoiled = bytes[..random.usize(0..bytes.len())].to_vec();
            let _ = decode_image(&spoiled, &Limits::default());
            spoiled.clone_from(&bytes);
            for _ in 0..20 {
                let at = random.usize(0..spoiled.len());
                spoiled[at] = random.u8(..);
            }
            if let Ok(image) = decode_image(&spoiled, &Limits::default()) {
                assert_eq!(image.rgb().len(), image.width() * image.height() * 3, "{}", path.display());
            }
        }
        let small = Limits { pixels_max: whole.width() * whole.height() - 1, ..Limits::default() };
        assert!(matches!(decode_image(&bytes, &small), Err(MediaError::TooLarge { .. })), "{}", path.display());
    }
}

/// M7 of docs/reliability.md.
#[test]
fn clips_keep_to_the_limits() {
    let clip = read("media/motion_64x64_5fps.gif");
    let refused = |limits: Limits, indices: &[usize]| {
        let result = Video::open(clip.clone(), &limits).and_then(|video| frames(&video, indices));
        result.expect_err("a limit").to_string()
    };
    let base = Limits::default();
    let cases: [(Limits, &[usize], &str); 5] = [
        (Limits { frames_walked_max: 11, ..base }, &[0], "at most 11 frames"),
        (Limits { frames_kept_max: 2, ..base }, &[0, 1, 2], "at most 2 frames"),
        (Limits { frame_pixels_max: 64 * 64 - 1, ..base }, &[0], "pixels in all"),
        (Limits { decoded_bytes_max: 64 * 64 * 3 * 2, ..base }, &[0, 1, 2], "sample is 0 MiB (3 frames of 64x64 pixels)"),
        (base, &[0, 99], "damaged"),
    ];
    for (limits, indices, expected) in cases {
        let message = refused(limits, indices);
        assert!(message.contains(expected), "{expected}: {message}");
    }
    // Only what is made of the frames is held.
    let limits = Limits { decoded_bytes_max: 64 * 64 * 3 * 2, ..base };
    let video = Video::open(clip.clone(), &limits).unwrap();
    let clip = video.clip(&VideoOptions::default(), |info| (0..info.frames).collect()).unwrap();
    let small = clip.each(|frame| Ok::<_, MediaError>(frame.resize(8, 8, Filter::Bilinear))).unwrap();
    assert_eq!((small.len(), small[0].width()), (12, 8));
}

#[test]
fn what_is_no_clip_is_refused_in_one_line() {
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("text", b"hello".to_vec(), "not a video"),
        ("playlist", b"#EXTM3U\n/etc/passwd\n".to_vec(), "not a video"),
        ("list of files", b"ffconcat version 1.0\nfile a.mp4\n".to_vec(), "not a video"),
        ("manifest", b"<?xml version='1.0'?><MPD/>".to_vec(), "not a video"),
        ("session", b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n".to_vec(), "not a video"),
        ("sound", read("media/speech_8k.wav"), "not a video"),
        ("picture", read("media/photo_64x64.png"), "still picture"),
        ("picture", read("media/lossy_130x96.webp"), "still picture"),
        ("JPEG", read("media/photo_224x224.jpg"), "not a video"),
        ("GIF header", b"GIF89a".to_vec(), "damaged"),
        ("huge GIF", gif(65_535, 65_535), ""),
        ("huge PNG", png(30_000, 30_000), ""),
    ];
    for (name, bytes, expected) in cases {
        let message = Video::open(bytes, &Limits::default()).expect_err(name).to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{name}: {message}");
    }
}

/// M5, M6 of docs/reliability.md.
#[test]
fn hostile_containers_are_refused_by_the_program() {
    let mp4 = read("media/motion_128x96_12fps.mp4");
    // A container around a playlist is opened by nobody.
    let disguised = [b"\0\0\0\x18ftypisom".to_vec(), b"#EXTM3U\n/etc/passwd\n".to_vec()].concat();
    let cases = [("half", mp4[..mp4.len() / 2].to_vec()), ("disguised", disguised), ("zeros", [&mp4[..64], &[0; 4096]].concat())];
    for (name, bytes) in cases {
        let message = Video::open(bytes, &Limits::default()).expect_err(name).to_string();
        assert!(message.contains("no frames") || message.contains("ffmpeg program") || message.contains("damaged"), "{message}");
    }
    let Ok(video) = Video::open(mp4.clone(), &Limits::default()) else { return };
    let refused = |limits: Limits| {
        let video = Video::open(mp4.clone(), &limits)?;
        frames(&video, &[0, 35]).map(|frames| frames.len())
    };
    let base = Limits::default();
    assert!(matches!(refused(Limits { frames_walked_max: 35, ..base }), Err(MediaError::TooLarge { .. })));
    assert!(matches!(refused(Limits { frames_max: 35, ..base }), Err(MediaError::TooLarge { .. })));
    assert!(refused(Limits { frame_pixels_max: 128 * 96 - 1, ..base }).is_err());
    assert_eq!(refused(Limits { decoding_seconds_max: 0, ..base }), Err(MediaError::TooSlow { seconds: 0 }));
    let interest = Interest::default();
    let video = video.with_interest(&interest);
    let clip = video.clip(&VideoOptions::default(), |_| vec![0, 35]).unwrap();
    interest.lose();
    assert_eq!(clip.each(Ok), Err(MediaError::Abandoned));
}

#[test]
fn animations_of_all_formats_are_clips() {
    for (url, fps) in [("media/moving_40x30_5fps.png", 5.0), ("media/moving_40x30_5fps.webp", 5.0)] {
        let video = Video::open(read(url), &Limits::default()).unwrap();
        assert_eq!(video.info(), VideoInfo { frames: 5, fps }, "{url}");
        let frames = frames(&video, &[0, 2, 4]).unwrap();
        let pixel = |frame: &Image, x: usize, y: usize| <[u8; 3]>::try_from(&frame.rgb()[(y * 40 + x) * 3..][..3]).unwrap();
        // Transparent pixels are white; blending WebP is a level off at times, as in its reference implementation.
        let near = |found: [u8; 3], expected: [u8; 3]| found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 1);
        let corners = [[0, 200, 90], if url.ends_with("png") { [255; 3] } else { [40, 170, 90] }, [160, 80, 90]];
        let squares = [[255, 255, 0], [255, 155, 0], [255, 55, 0]];
        for (i, frame) in frames.iter().enumerate() {
            let found = [pixel(frame, 0, 0), pixel(frame, 5 + 10 * i, 8)];
            assert!(near(found[0], corners[i]) && near(found[1], squares[i]), "{url}, frame {i}: {found:?}");
        }
    }
}

#[test]
fn options_choose_a_part_and_pictures_are_taken_as_they_are() {
    let clip = Video::open(read("media/motion_64x64_5fps.gif"), &Limits::default()).unwrap();
    let files = |count: usize| vec![read("media/photo_64x64.png"); count];
    let list = Video::of_pictures(files(6), Timing::Fps(2.0), &Limits::default()).unwrap();
    let timed = Video::of_pictures(files(3), Timing::At(vec![0.0, 1.5, 6.0]), &Limits::default()).unwrap();
    let base = VideoOptions::default();
    // Times of frames and how many there are per second. The rule of these cases takes the first and the last frame.
    type Expected<'a> = Result<(&'a [f64], f64), &'a str>;
    let cases: [(&Video, VideoOptions, Expected); 10] = [
        (&clip, base, Ok((&[0.0, 2.2], 5.0 * 2.0 / 12.0))),
        (&clip, VideoOptions { start: Some(1.0), ..base }, Ok((&[1.0, 2.2], 5.0 * 2.0 / 7.0))),
        (&clip, VideoOptions { start: Some(0.4), end: Some(1.0), ..base }, Ok((&[0.4, 0.8], 5.0 * 2.0 / 3.0))),
        (&clip, VideoOptions { start: Some(9.0), ..base }, Err("start is 9 s, but the clip is 2.40 s long")),
        (&clip, VideoOptions { fps: Some(-1.0), ..base }, Err("fps must be above 0")),
        (&list, base, Ok((&[0.0, 0.5, 1.0, 1.5, 2.0, 2.5], 2.0))),
        (&list, VideoOptions { max_frames: Some(2), ..base }, Ok((&[0.0, 1.5], 2.0 / 3.0))),
        (&list, VideoOptions { start: Some(2.0), ..base }, Ok((&[2.0, 2.5], 2.0))),
        (&timed, base, Ok((&[0.0, 1.5, 6.0], 1.0 / 3.0))),
        (&timed, VideoOptions { start: Some(1.0), end: Some(2.0), ..base }, Ok((&[1.5], 1.0 / 3.0))),
    ];
    for (video, options, expected) in cases {
        let clip = video.clip(&options, |part| vec![0, part.frames - 1]);
        match (clip, expected) {
            (Ok(clip), Ok((times, fps))) => {
                let differ = clip.times.iter().zip(times).any(|(a, b)| (a - b).abs() > 1e-9);
                assert!(clip.times.len() == times.len() && !differ, "{:?} are not {times:?}", clip.times);
                assert!((clip.fps - fps).abs() < 1e-9, "{} is not {fps}", clip.fps);
                let count = clip.times.len();
                assert_eq!(clip.each(Ok::<_, MediaError>).unwrap().len(), count);
            }
            (Err(e), Err(message)) => assert!(e.to_string().contains(message), "{e}"),
            (clip, expected) => panic!("{:?} is not {expected:?}", clip.map(|clip| clip.times)),
        }
    }
    let unequal = vec![read("media/photo_64x64.png"), read("media/photo_97x131.png")];
    let unequal = Video::of_pictures(unequal, Timing::Fps(1.0), &Limits::default()).unwrap();
    let message = frames(&unequal, &[]).unwrap_err().to_string();
    assert_eq!(message, "frame 1 is 97x131 pixels, those before are 64x64; all frames of a clip have one size");
}
