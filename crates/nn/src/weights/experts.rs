//! Experts as checkpoints have them: a tensor per expert, or one for all.

use kernels::Source;

use super::Weights;
use crate::importance::Watch;
use crate::linear::{Format, Linear, Packed};
use crate::moe::ExpertLinear;
use crate::{NnError, Tensor, host};

/// How a checkpoint has experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    /// `N.gate_proj.weight` and `N.up_proj.weight` [inner, hidden], `N.down_proj.weight` [hidden, inner].
    Apart,
    /// `gate_up_proj` [experts, 2 * inner, hidden] and `down_proj` [experts, hidden, inner].
    Fused,
    /// `gate_up_proj` [experts, hidden, 2 * inner] and `down_proj` [experts, inner, hidden].
    FusedTurned,
}

/// One matrix of each expert.
struct Matrices<'a> {
    experts: usize,
    inputs: usize,
    /// (name, outputs) of what it is made of where experts are apart; the names by which its importance is known.
    parts: &'a [(&'a str, usize)],
    /// Name where experts are fused.
    fused: &'a str,
    stored: Stored,
}

impl Matrices<'_> {
    fn outputs(&self) -> usize {
        self.parts.iter().map(|(_, outputs)| outputs).sum()
    }

    /// Of one expert.
    fn size(&self) -> usize {
        self.outputs() * self.inputs
    }

    /// Names that a topology knows them by: those of the first expert, or the one of all.
    fn names(&self) -> Vec<String> {
        match self.stored {
            Stored::Apart => self.parts.iter().map(|(part, _)| name(0, part)).collect(),
            Stored::Fused | Stored::FusedTurned => vec![self.fused.into()],
        }
    }

    fn fused_shape(&self) -> [usize; 3] {
        match self.stored {
            Stored::FusedTurned => [self.experts, self.inputs, self.outputs()],
            Stored::Fused | Stored::Apart => [self.experts, self.outputs(), self.inputs],
        }
    }
}

fn name(expert: usize, part: &str) -> String {
    format!("{expert}.{part}.weight")
}

impl Weights {
    /// The experts here, [experts, 2 * inner, hidden] (gates, then values) and [experts, hidden, inner]. On the CPU they are packed one
    /// by one, straight from the mapped file.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn experts(&self, experts: usize, hidden: usize, inner: usize) -> Result<(ExpertLinear, ExpertLinear), NnError> {
        if !self.device().is_cpu() {
            return self.experts_elsewhere(experts, hidden, inner);
        }
        self.both((experts, hidden, inner), |matrices| self.experts_here(matrices))
    }

    /// The same on a device that is not the CPU.
    pub(crate) fn experts_elsewhere(
        &self,
        experts: usize,
        hidden: usize,
        inner: usize,
    ) -> Result<(ExpertLinear, ExpertLinear), NnError> {
        self.both((experts, hidden, inner), |matrices| self.linears(matrices))
    }

    fn both(
        &self,
        (experts, hidden, inner): (usize, usize, usize),
        load: impl Fn(&Matrices) -> Result<ExpertLinear, NnError>,
    ) -> Result<(ExpertLinear, ExpertLinear), NnError> {
        let [stored_gate_up, stored_down] = self.stored(experts, hidden, inner);
        let gate_up = [("gate_proj", inner), ("up_proj", inner)];
        let gate_up = Matrices { experts, inputs: hidden, parts: &gate_up, fused: "gate_up_proj", stored: stored_gate_up };
        let down = Matrices { experts, inputs: inner, parts: &[("down_proj", hidden)], fused: "down_proj", stored: stored_down };
        let both = (load(&gate_up)?, load(&down)?);
        self.tell();
        Ok(both)
    }

    /// Gates with values, and the way down. Both shapes together can be read in one way only; what is in blocks is never turned.
    fn stored(&self, experts: usize, hidden: usize, inner: usize) -> [Stored; 2] {
        let names = ["gate_up_proj", "down_proj"].map(|name| self.full(name));
        let in_blocks = names.each_ref().map(|name| self.checkpoint.quant(name).is_some());
        let straight = [[experts, 2 * inner, hidden], [experts, hidden, inner]];
        let turned = [[experts, hidden, 2 * inner], [experts, inner, hidden]];
        let expected = [0, 1].map(|i| if in_blocks[i] { straight[i] } else { turned[i] });
        let found = names.each_ref().map(|name| self.checkpoint.shape(name));
        match found {
            [None, None] => [Stored::Apart; 2],
            found if found == expected.each_ref().map(|shape| Some(shape.as_slice())) => {
                in_blocks.map(|in_blocks| if in_blocks { Stored::Fused } else { Stored::FusedTurned })
            }
            _ => [Stored::Fused; 2],
        }
    }

    fn experts_here(&self, m: &Matrices) -> Result<ExpertLinear, NnError> {
        let format = self.format(&m.names(), m.inputs)?;
        let mut packed = self.matrix(m.experts, (m.outputs(), m.inputs), format);
        match m.stored {
            Stored::Apart => self.fill_apart(m, format, &mut packed)?,
            Stored::Fused | Stored::FusedTurned => self.fill_fused(m, format, &mut packed)?,
        }
        let watches = (0..m.experts).map_while(|expert| self.watch_expert(expert, m));
        Ok(ExpertLinear::packed(packed, watches.collect()))
    }

    fn fill_apart(&self, m: &Matrices, format: Format, packed: &mut Packed) -> Result<(), NnError> {
        let mut done = 0;
        for expert in 0..m.experts {
            for (part, outputs) in m.parts {
                let name = self.full(&name(expert, part));
                let importance = self.importance(&name, m.inputs, format)?;
                self.numbers(&name, (&[*outputs, m.inputs], format), |w| packed.fill(done, w, importance.as_deref()))?;
                done += outputs;
            }
        }
        Ok(())
    }

    fn fill_fused(&self, m: &Matrices, format: Format, packed: &mut Packed) -> Result<(), NnError> {
        let (outputs, size) = (m.outputs(), m.size());
        // What an expert's parts are given is the same.
        let importance = |expert| self.importance(&self.full(&name(expert, m.parts[0].0)), m.inputs, format);
        let importance = (0..m.experts).map(importance).collect::<Result<Vec<_>, _>>()?;
        let mut turned = if m.stored == Stored::FusedTurned { vec![0.0; size] } else { Vec::new() };
        let (name, turned_round) = (self.full(m.fused), m.stored == Stored::FusedTurned);
        self.note(&name, format, turned_round);
        self.unnoted(&name, &m.fused_shape(), |all| {
            for (expert, importance) in importance.iter().enumerate() {
                let own = all.part(expert * size..(expert + 1) * size);
                if turned.is_empty() {
                    packed.fill(expert * outputs, own, importance.as_deref());
                } else {
                    own.turned(host::cpu(), (m.inputs, outputs), &mut turned);
                    packed.fill(expert * outputs, Source::F32(&turned), importance.as_deref());
                }
            }
        })
    }

    fn linears(&self, m: &Matrices) -> Result<ExpertLinear, NnError> {
        let format = self.format(&m.names(), m.inputs)?;
        let fused = match m.stored {
            Stored::Apart => None,
            Stored::Fused | Stored::FusedTurned => Some(self.raw(m.fused, &m.fused_shape())?),
        };
        let weight = |expert: usize| -> Result<Tensor, NnError> {
            match &fused {
                Some(all) if m.stored == Stored::FusedTurned => Ok(all.get(expert)?.t()?.contiguous()?),
                Some(all) => Ok(all.get(expert)?.contiguous()?),
                None => {
                    let parts = m.parts.iter().map(|(part, outputs)| self.raw(&name(expert, part), &[*outputs, m.inputs]));
                    super::join(parts.collect::<Result<_, _>>()?)
                }
            }
        };
        let linear = |expert: usize| -> Result<Linear, NnError> {
            let importance = self.importance(&self.full(&name(expert, m.parts[0].0)), m.inputs, format)?;
            let linear = Linear::elsewhere(weight(expert)?, None, format, importance.as_deref())?;
            Ok(linear.watched(self.watch_expert(expert, m)))
        };
        Ok(ExpertLinear::elsewhere(m.outputs(), (0..m.experts).map(linear).collect::<Result<_, _>>()?))
    }

    fn watch_expert(&self, expert: usize, m: &Matrices) -> Option<Watch> {
        let observer = self.observer()?;
        Some(observer.watch(m.parts.iter().map(|(part, _)| self.full(&name(expert, part))).collect()))
    }
}
