//! What the host must have so that a model's thunks can run.
//!
//! Not responsible for: what a model offers (`gemel_x86::cpuid`).

use gemel_x86::{CpuModel, Feature};
use std::arch::is_x86_feature_detected;

/// A feature of the model whose instructions run on the host's own unit, and which this host lacks.
pub fn missing_on_host(model: &CpuModel) -> Option<&'static str> {
    let needs = [
        (Feature::SSE3, "sse3", is_x86_feature_detected!("sse3")),
        (Feature::SSSE3, "ssse3", is_x86_feature_detected!("ssse3")),
        (Feature::SSE4_1, "sse4_1", is_x86_feature_detected!("sse4.1")),
        (Feature::SSE4_2, "sse4_2", is_x86_feature_detected!("sse4.2")),
        (Feature::AES, "aes", is_x86_feature_detected!("aes")),
        (Feature::PCLMULQDQ, "pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        (Feature::SHA, "sha", is_x86_feature_detected!("sha")),
        (Feature::AVX, "avx", is_x86_feature_detected!("avx")),
        (Feature::AVX2, "avx2", is_x86_feature_detected!("avx2")),
        (Feature::FMA, "fma", is_x86_feature_detected!("fma")),
        (Feature::F16C, "f16c", is_x86_feature_detected!("f16c")),
        (Feature::AVX512F, "avx512f", is_x86_feature_detected!("avx512f")),
        (Feature::AVX512CD, "avx512cd", is_x86_feature_detected!("avx512cd")),
        (Feature::AVX512BW, "avx512bw", is_x86_feature_detected!("avx512bw")),
        (Feature::AVX512DQ, "avx512dq", is_x86_feature_detected!("avx512dq")),
        (Feature::AVX512VL, "avx512vl", is_x86_feature_detected!("avx512vl")),
        (Feature::VAES, "vaes", is_x86_feature_detected!("vaes")),
        (Feature::VPCLMULQDQ, "vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
    ];
    needs.into_iter().find(|(feature, _, there)| model.has(*feature) && !there).map(|(_, name, _)| name)
}
