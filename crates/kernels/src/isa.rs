//! Instruction sets: the one place where features of the processor are looked for.

use std::fmt;

/// An instruction set that this machine has: a value is proof of it, since it can only come from detection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

/// Instruction sets that kernels are written for, each containing those before it of the same architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What the compiler's target has. Always there.
    Scalar,
    /// AVX2, FMA and F16C (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI (Ice Lake).
    Avx512,
    /// The same with BF16 (Cooper Lake, Sapphire Rapids, Zen 4).
    Avx512Bf16,
    /// NEON: every aarch64.
    Neon,
    /// The same with dot products of bytes (Neoverse N1, Cortex-A76, Apple M1).
    Dotprod,
    /// The same with products of 2 by 8 bytes (Neoverse V1, Cortex-A710, Apple M2).
    I8mm,
}

impl Level {
    /// The least first.
    const ALL: [Self; 7] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Neon, Self::Dotprod, Self::I8mm];
}

impl Isa {
    /// The most that this machine has.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self(Level::Scalar))
    }

    /// All that this machine has, the least first.
    pub fn available() -> impl Iterator<Item = Self> {
        Level::ALL.into_iter().filter(|level| detected(*level)).map(Self)
    }

    /// Which one it is.
    pub fn level(self) -> Level {
        self.0
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Level::Scalar => "none",
            Level::Avx2 => "AVX2",
            Level::Avx512 => "AVX-512 with VNNI",
            Level::Avx512Bf16 => "AVX-512 with VNNI and BF16",
            Level::Neon => "NEON",
            Level::Dotprod => "NEON with dot products",
            Level::I8mm => "NEON with dot products and I8MM",
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn detected(level: Level) -> bool {
    let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = || {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
    };
    match level {
        Level::Scalar => true,
        Level::Avx2 => avx2(),
        Level::Avx512 => avx2() && avx512(),
        Level::Avx512Bf16 => avx2() && avx512() && is_x86_feature_detected!("avx512bf16"),
        Level::Neon | Level::Dotprod | Level::I8mm => false,
    }
}

#[cfg(target_arch = "aarch64")]
fn detected(level: Level) -> bool {
    use std::arch::is_aarch64_feature_detected;
    // Panels are read as they lie, the lowest byte first.
    let neon = || cfg!(target_endian = "little") && is_aarch64_feature_detected!("neon");
    let dotprod = || neon() && is_aarch64_feature_detected!("dotprod");
    match level {
        Level::Scalar => true,
        Level::Neon => neon(),
        Level::Dotprod => dotprod(),
        Level::I8mm => dotprod() && is_aarch64_feature_detected!("i8mm"),
        Level::Avx2 | Level::Avx512 | Level::Avx512Bf16 => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected(level: Level) -> bool {
    level == Level::Scalar
}

/// How a * b + c is rounded: once where the instruction set has it, twice where it would be a call into the C library.
pub trait MulAdd {
    /// a * b + c
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

/// Rounded once.
pub struct Fused;

/// Rounded twice.
pub struct Separate;

/// As all machines do that this is compiled for.
#[cfg(any(target_arch = "aarch64", target_feature = "fma"))]
pub type Compiled = Fused;

/// As all machines do that this is compiled for.
#[cfg(not(any(target_arch = "aarch64", target_feature = "fma")))]
pub type Compiled = Separate;

impl MulAdd for Fused {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl MulAdd for Separate {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// Compiles a plain loop once for every instruction set, and picks at run time.
///
/// `for_each_isa!(fn name(x: &mut [f32], factor: f32) = body);` makes `name(isa, x, factor)` of an `#[inline(always)]`
/// function `body<M: MulAdd>(x, factor)`. A result is written as in a function: `fn sum(x: &[f32]) -> f32 = body`.
///
/// What `body` calls has to be inlined, or it knows nothing of the instruction set: `#[inline(always)]` functions and `for`
/// loops. A large closure in an adapter of an iterator (`map`, `for_each`) is a function of its own.
#[macro_export]
macro_rules! for_each_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:ident) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::Isa, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    $body::<$crate::isa::Fused>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    $body::<$crate::isa::Fused>($($arg),*)
                }
                // SAFETY: an `Isa` exists only where the machine has it.
                match isa.level() {
                    $crate::isa::Level::Avx2 => unsafe { avx2($($arg),*) },
                    $crate::isa::Level::Avx512 | $crate::isa::Level::Avx512Bf16 => unsafe { avx512($($arg),*) },
                    _ => $body::<$crate::isa::Compiled>($($arg),*),
                }
            }
            // On aarch64 what the compiler's target has is NEON.
            #[cfg(not(target_arch = "x86_64"))]
            {
                let _ = isa;
                $body::<$crate::isa::Compiled>($($arg),*)
            }
        }
    };
}

pub use for_each_isa;

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn axpy<M: MulAdd>(x: &[f32], factor: f32, y: &mut [f32]) {
        x.iter().zip(y).for_each(|(x, y)| *y = M::mul_add(*x, factor, *y));
    }

    for_each_isa!(fn add_scaled(x: &[f32], factor: f32, y: &mut [f32]) = axpy);

    #[test]
    fn a_loop_runs_on_every_instruction_set() {
        assert_eq!(Isa::available().next().map(Isa::level), Some(Level::Scalar));
        for isa in Isa::available() {
            let mut y = vec![1.0; 37];
            add_scaled(isa, &[2.0; 37], 3.0, &mut y);
            assert_eq!(y, [7.0; 37], "{isa:?}");
        }
    }
}
