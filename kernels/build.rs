//! Compiles the kernels of `cuda/` where the feature asks for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Capabilities that are compiled for where none is named: Hopper.
const DEFAULT_CAPABILITY: &str = "90";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for name in ["CUDA_HOME", "CUDA_COMPUTE_CAP", "NVCC"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(sentence) = compile() {
        // Cargo shows the line and ends the build.
        println!("cargo::error={sentence}");
    }
}

/// Makes one file of machine code and of PTX, which the driver compiles for later devices.
fn compile() -> Result<(), String> {
    let folder = Path::new("cuda");
    let sources = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for source in sources.flatten() {
        println!("cargo::rerun-if-changed={}", source.path().display());
    }
    println!("cargo::rustc-env=INGLE_CUDA_CAPABILITY={}", capability());
    // The tensor library's kernels are started through it, and it knows whether they were.
    println!("cargo::rustc-link-lib=dylib=cudart");
    let out = env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    let capability = capability();
    let nvcc = nvcc();
    let output = Command::new(&nvcc)
        .args(["-std=c++17", "-O3", "-fatbin"])
        .arg(format!(
            "-gencode=arch=compute_{capability},code=sm_{capability}"
        ))
        .arg(format!(
            "-gencode=arch=compute_{capability},code=compute_{capability}"
        ))
        .arg(folder.join("kernels.cu"))
        .arg("-o")
        .arg(Path::new(&out).join("kernels.fatbin"))
        .output()
        .map_err(|error| {
            let nvcc = nvcc.display();
            format!(
                "{nvcc}: {error}: run kernels/cuda/toolchain.sh and set CUDA_HOME to what it prints"
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "nvcc does not compile cuda/kernels.cu: {}",
        said.trim().replace('\n', " / ")
    ))
}

/// What is compiled for, as `90` for 9.0.
fn capability() -> String {
    let named = env::var_os("CUDA_COMPUTE_CAP").unwrap_or_else(|| DEFAULT_CAPABILITY.into());
    named.to_string_lossy().into_owned()
}

fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    match env::var_os("CUDA_HOME") {
        Some(home) => Path::new(&home).join("bin/nvcc"),
        None => "nvcc".into(),
    }
}
