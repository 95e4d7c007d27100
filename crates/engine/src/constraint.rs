use std::fmt::Debug;

/// What an answer may say, as far as the engine is concerned: which tokens may come next.
pub trait Constraint: Debug + Send {
    /// Tokens that may come next.
    ///
    /// # Errors
    /// A reason that ends this answer.
    fn mask(&mut self) -> Result<Mask, String>;

    /// This token has come. End tokens are not told.
    ///
    /// # Errors
    /// A reason that ends this answer.
    fn accept(&mut self, token: u32) -> Result<(), String>;

    /// Goes on over the tokens that must come next, and says them.
    fn skip(&mut self) -> Vec<u32>;

    /// Whether nothing can follow.
    fn is_complete(&self) -> bool;

    /// Another that goes its own way from here.
    fn fork(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.fork()
    }
}

/// A set of tokens: bit `id % 32` of word `id / 32`. Those behind the last word are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(pub Vec<u32>);

impl Mask {
    /// Whether a token is in it.
    pub fn allows(&self, id: u32) -> bool {
        self.0.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// Takes all others out of the draw.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        (0u32..).zip(logits).filter(|(id, _)| !self.allows(*id)).for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
    }
}
