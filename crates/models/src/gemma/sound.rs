use media::mel::Emphasis;

/// `preemphasis` and `preemphasis_htk_flavor` of a front end.
pub fn emphasis(share: f64, htk: bool) -> Emphasis {
    match htk {
        _ if share <= 0.0 => Emphasis::Absent,
        true => Emphasis::Within(share),
        false => Emphasis::Across(share),
    }
}
