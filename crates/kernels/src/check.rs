//! What tests of several operations need.

use std::fmt::Debug;

/// Numbers in ±`size`.
pub(crate) fn random(rng: &mut fastrand::Rng, count: usize, size: f32) -> Vec<f32> {
    (0..count).map(|_| (2.0 * rng.f32() - 1.0) * size).collect()
}

/// Compares with a reference: an error may be `tolerance` of the expected number, or of one where that is smaller. What is not
/// finite has to be the same.
pub(crate) fn close(actual: &[f32], expected: impl IntoIterator<Item = f64>, tolerance: f64, case: impl Debug) {
    let mut count = 0;
    for (i, expected) in expected.into_iter().enumerate() {
        let a = f64::from(actual[i]);
        let near = (a - expected).abs() <= tolerance * expected.abs().max(1.0);
        assert!(near || a == expected || a.is_nan() && expected.is_nan(), "{case:?}, element {i}: {a} is not {expected}");
        count += 1;
    }
    assert_eq!(actual.len(), count, "{case:?}");
}
