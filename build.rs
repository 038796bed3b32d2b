//! Compiles every BPF program, `src/bpf/X.bpf.c`, into a skeleton, `$OUT_DIR/X.skel.rs`.
//!
//! `tests/bpf` holds programs that only tests and benchmarks load; they take the same way.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use libbpf_cargo::SkeletonBuilder;

/// Where BPF programs stand; a change to any file there, headers too, builds them all again.
const SOURCES: [&str; 2] = ["src/bpf", "tests/bpf"];

fn main() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("CARGO_CFG_TARGET_ARCH")?;
    for folder in SOURCES {
        println!("cargo:rerun-if-changed={folder}");
        for entry in Path::new(folder)
            .read_dir()
            .with_context(|| format!("read {folder}"))?
        {
            let source = entry?.path();
            if let Some(stem) = program_stem(&source) {
                compile(&source, &out.join(format!("{stem}.skel.rs")), &arch)?;
            }
        }
    }
    Ok(())
}

fn program_stem(source: &Path) -> Option<&str> {
    source.file_name()?.to_str()?.strip_suffix(".bpf.c")
}

fn compile(source: &Path, skeleton: &Path, arch: &str) -> Result<()> {
    SkeletonBuilder::new()
        .source(source)
        .clang_args([
            "-mcpu=v3", // 5.12: atomics that return what was there
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Isrc/bpf",
            &format!("-I/usr/include/{arch}-linux-gnu"), // asm/types.h on Debian's multiarch
        ])
        .build_and_generate(skeleton)
        .with_context(|| {
            format!(
                "compile {}: clang, libelf-dev and libc6-dev are needed (`make build` installs them)",
                source.display()
            )
        })
}
