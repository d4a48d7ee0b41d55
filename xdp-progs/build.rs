//! Compiles the BPF programs. The objects land in `OUT_DIR` and are embedded by `src/load.rs`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libbpf_cargo::SkeletonBuilder;

const PROGRAMS: [&str; 3] = ["pod", "uplink", "shortcut"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = PathBuf::from(std::env::var_os("CLANG").unwrap_or_else(|| "clang".into()));
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // Set by libbpf-sys for its direct dependents: the directory that holds bpf/bpf_helpers.h.
    let libbpf = std::env::var("DEP_BPF_INCLUDE")?;

    let mut args = vec![
        format!("-I{libbpf}"),
        "-Wall".to_owned(),
        "-Wextra".to_owned(),
        "-Werror".to_owned(),
        "-mcpu=v3".to_owned(),
    ];
    for directory in system_includes(&clang)? {
        args.extend(["-idirafter".to_owned(), directory]);
    }
    for program in PROGRAMS {
        SkeletonBuilder::new()
            .source(Path::new("bpf").join(format!("{program}.bpf.c")))
            .obj(out_dir.join(format!("{program}.bpf.o")))
            .clang(&clang)
            .clang_args(&args)
            .build()
            .map_err(|e| format!("clang could not build bpf/{program}.bpf.c: {e:#}"))?;
    }
    Ok(())
}

/// Where the host's compiler looks for headers. With `--target=bpf` clang leaves the multiarch
/// directory out, and `<linux/types.h>` needs its `asm/types.h`.
fn system_includes(clang: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let output = Command::new(clang)
        .args(["-v", "-E", "-x", "c", "-"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("clang is needed to build the XDP programs ({clang:?}): {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let list = text
        .lines()
        .skip_while(|line| !line.starts_with("#include <...>"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .map(|line| line.trim().to_owned())
        .collect();
    Ok(list)
}
