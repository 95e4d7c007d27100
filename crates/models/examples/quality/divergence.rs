//! How different two models' words are.

/// Over all rows.
pub struct Figures {
    /// Mean of the KL divergence, in nats.
    pub mean: f64,
    /// What 99 of 100 rows stay below.
    pub high: f64,
    /// Share of rows whose most probable word is the same.
    pub same: f64,
}

impl Figures {
    /// Of logits that belong together, row by row.
    pub fn of(expected: &[Vec<f32>], found: &[Vec<f32>]) -> Self {
        let pairs = || expected.iter().zip(found);
        let mut divergences: Vec<f64> = pairs().map(|(p, q)| divergence(p, q)).collect();
        divergences.sort_by(f64::total_cmp);
        let rows = divergences.len().max(1);
        let same = pairs().filter(|(p, q)| best(p) == best(q)).count();
        Self {
            mean: divergences.iter().sum::<f64>() / rows as f64,
            high: divergences.get(rows * 99 / 100).copied().unwrap_or_default(),
            same: same as f64 / rows as f64,
        }
    }
}

/// KL(p ‖ q) of the distributions that logits stand for.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_all, q_all) = (log_sum_exp(p), log_sum_exp(q));
    let logs = p.iter().zip(q).map(|(p, q)| (f64::from(*p) - p_all, f64::from(*q) - q_all));
    logs.map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + logits.iter().map(|v| (f64::from(*v) - largest).exp()).sum::<f64>().ln()
}

fn best(logits: &[f32]) -> Option<usize> {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i)
}
