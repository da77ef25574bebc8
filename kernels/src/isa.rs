//! Which instructions this processor has, as values that prove it.

/// Proof that AVX2, FMA and F16C exist on this processor. Only [`Isa::detect`] and its kin make one.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that the byte dot product exists on 256-bit vectors, and all that [`Avx2`] proves.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvxVnni(pub(crate) Encoding);

/// How an instruction is written: processors have one, the other, or both.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// AVX-VNNI.
    Vex(Vex),
    /// AVX-512 VNNI and VL.
    Evex(Evex),
}

/// Proof of AVX-VNNI and [`Avx2`].
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vex(());

/// Proof of AVX-512 VNNI and VL, and [`Avx2`].
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evex(());

/// Proof that AVX-512 F, BW, DQ, VL and VNNI exist on this processor, and all that [`Avx2`] proves.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512Vnni(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// The proof, inside of functions that are compiled for these instructions.
    ///
    /// # Safety
    /// The processor has AVX2, FMA and F16C.
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

#[cfg(target_arch = "x86_64")]
impl Vex {
    /// The proof, inside of functions that are compiled for these instructions.
    ///
    /// # Safety
    /// The processor has AVX-VNNI, and what [`Avx2`] proves.
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

#[cfg(target_arch = "x86_64")]
impl Evex {
    /// The proof, inside of functions that are compiled for these instructions.
    ///
    /// # Safety
    /// The processor has AVX-512 VNNI and VL, and what [`Avx2`] proves.
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512Vnni {
    /// The proof, inside of functions that are compiled for these instructions.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ, VL and VNNI, and what [`Avx2`] proves.
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// A tier of instructions, chosen once and handed to every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust: every processor.
    Scalar,
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 256-bit vectors with the byte dot product.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// 512-bit vectors with the byte dot product.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
}

/// A tier that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// A name no tier has.
    #[error("unknown instruction set {name:?}: use scalar, avx2, avxvnni or avx512vnni")]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// A tier this processor lacks.
    #[error("this processor lacks {name}: the best it has is {best}")]
    Unsupported {
        /// The tier that was asked for.
        name: String,
        /// The best tier there is.
        best: &'static str,
    },
}

impl Isa {
    /// The best tier of this processor.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }

    /// The tier of that name.
    ///
    /// # Errors
    /// [`IsaError`] when no tier has the name, or this processor lacks it.
    pub fn named(name: &str) -> Result<Self, IsaError> {
        if !["scalar", "avx2", "avxvnni", "avx512vnni"].contains(&name) {
            return Err(IsaError::Unknown {
                name: name.to_owned(),
            });
        }
        Self::available()
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| IsaError::Unsupported {
                name: name.to_owned(),
                best: Self::detect().name(),
            })
    }

    /// Every tier of this processor, the plainest first.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(
            not(target_arch = "x86_64"),
            expect(unused_mut, reason = "the others are x86-64's")
        )]
        let mut tiers = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            if avx2 {
                tiers.push(Self::Avx2(Avx2(())));
            }
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            let vex = is_x86_feature_detected!("avxvnni").then_some(Encoding::Vex(Vex(())));
            let evex = avx512.then_some(Encoding::Evex(Evex(())));
            if let (true, Some(encoding)) = (avx2, vex.or(evex)) {
                tiers.push(Self::AvxVnni(AvxVnni(encoding)));
            }
            if avx2 && avx512 {
                tiers.push(Self::Avx512Vnni(Avx512Vnni(())));
            }
        }
        tiers
    }

    /// The name `INGLE_ISA` knows the tier by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => "avx512vnni",
        }
    }
}

/// Writes a function once and compiles it for every tier, leaving the vectors to the compiler.
///
/// The function gets a first parameter `isa`. Its body may ask the constant `FUSED` whether a fused
/// multiply-add is one instruction, as against a call of a slow library function, and `WIDE` whether
/// there are 32 registers of 512 bits. All tiers give the same bits unless the body asks for `FUSED`,
/// for nothing is reordered or fused behind its back.
macro_rules! vectorized {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            fn plain($($arg: $ty),*) $(-> $ret)? {
                const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
                const WIDE: bool = false;
                let _ = (FUSED, WIDE);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                const FUSED: bool = true;
                const WIDE: bool = false;
                let _ = (FUSED, WIDE);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                const FUSED: bool = true;
                const WIDE: bool = true;
                let _ = (FUSED, WIDE);
                $body
            }
            match isa {
                $crate::Isa::Scalar => plain($($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx2(_) | $crate::Isa::AvxVnni(_) => {
                    // SAFETY: both tokens prove AVX2, FMA and F16C.
                    unsafe { avx2($($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                $crate::Isa::Avx512Vnni(_) => {
                    // SAFETY: the token proves these parts of AVX-512, and AVX2, FMA and F16C.
                    unsafe { avx512($($arg),*) }
                }
            }
        }
    };
}
pub(crate) use vectorized;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_tier_is_found_by_its_name() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
        assert_eq!(Isa::available().last(), Some(&Isa::detect()));
    }

    #[test]
    fn an_unknown_or_absent_tier_is_an_error_that_names_it() {
        let error = Isa::named("sse9").unwrap_err().to_string();
        assert!(error.contains("\"sse9\""), "{error}");
        for name in ["avx2", "avxvnni", "avx512vnni"] {
            if !Isa::available().iter().any(|isa| isa.name() == name) {
                let error = Isa::named(name).unwrap_err().to_string();
                assert!(error.contains(name), "{error}");
            }
        }
    }
}
