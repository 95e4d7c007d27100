//! Row by row.

use super::{LANES, Unit};
use crate::attention::lanes::Lanes;

impl Unit<'_> {
    /// # Safety
    /// Called inside of [`Lanes::run`].
    #[inline(always)]
    pub(super) unsafe fn recurrent<L: Lanes>(&self, state: &mut [f32]) {
        for (i, panel) in state.chunks_exact_mut(self.depth() * LANES).enumerate() {
            // SAFETY: as promised.
            unsafe { self.pass::<L>(panel.as_chunks_mut().0, self.column + i * LANES) };
        }
    }

    /// Lets all rows pass by one panel, [padded key_dim, 16], which stays in the first cache.
    ///
    /// # Safety
    /// Called inside of [`Lanes::run`].
    #[inline(always)]
    unsafe fn pass<L: Lanes>(&self, panel: &mut [[f32; LANES]], column: usize) {
        let (q, k, key_head) = (&self.x.q, &self.x.k, self.key_head());
        // What the state maps the next row's key to.
        let mut known = L::splat(0.0);
        for (numbers, k) in panel.iter().zip(k.head(self.rows.start, key_head)) {
            // SAFETY: sixteen numbers.
            known = unsafe { L::load(numbers.as_ptr()) }.mul_add(L::splat(*k), known);
        }
        for row in self.rows.clone() {
            let next = k.head(self.rows.end.min(row + 2) - 1, key_head);
            let (decay, beta) = self.gates(row);
            let kept = L::splat(decay.exp());
            let values = self.values(row, column);
            // SAFETY: sixteen numbers.
            let change = unsafe { L::load(values.as_ptr()) }.sub(known.mul(kept)).mul(L::splat(beta));
            let mut read = L::splat(0.0);
            known = L::splat(0.0);
            let of_row = q.head(row, key_head).iter().zip(k.head(row, key_head)).zip(next);
            for (numbers, ((q, k), next)) in panel.iter_mut().zip(of_row) {
                // SAFETY: sixteen numbers.
                unsafe {
                    let changed = change.mul_add(L::splat(*k), L::load(numbers.as_ptr()).mul(kept));
                    changed.store(numbers.as_mut_ptr());
                    read = changed.mul_add(L::splat(*q), read);
                    known = changed.mul_add(L::splat(*next), known);
                }
            }
            let mut numbers = [0.0; LANES];
            // SAFETY: sixteen numbers.
            unsafe { read.mul(L::splat(self.x.scale)).store(numbers.as_mut_ptr()) };
            self.put(row, column, &numbers);
        }
    }
}
