//! `gemel demo`: a guest survives the death of the machine that runs it, before your eyes.
//!
//! Not responsible for: surviving (`gemel-pair`). This program only starts two others, types, kills and looks.

mod processes;
mod scene;
mod screen;
mod verdict;

use anyhow::Result;
use std::process::{Command, ExitCode};

/// Options of `gemel demo`. Any guest can be protected; the scene is for one with a shell on its serial port whose prompt is
/// `gemel# `.
#[derive(clap::Args)]
pub struct Args {
    /// Guest memory in MiB (or with a suffix, as in 1G)
    #[arg(short, value_name = "MIB", default_value = "256")]
    memory: String,
    /// The kernel: a bzImage, an ELF with a PVH entry, or a multiboot ELF
    #[arg(long, value_name = "FILE")]
    kernel: String,
    /// The initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<String>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// A disk: file=PATH,if=virtio,snapshot=on; repeatable. Each side has its own writes
    #[arg(long, value_name = "SPEC")]
    drive: Vec<String>,
    /// CPU model and features, as in x86-64-v2,+pcid: x86-64-v2; x86-64-v3 with AVX2, FMA, BMI, AES, SHA, RDRAND; x86-64-v4 with AVX-512
    #[arg(long, value_name = "MODEL", default_value = "x86-64-v2")]
    cpu: String,
    /// Kills the primary so many seconds after the guest's first output, whatever the guest does
    #[arg(long, value_name = "SECONDS")]
    kill_after: Option<f64>,
    /// Prints the figures as one JSON object on the last line
    #[arg(long)]
    json: bool,
    /// Leaves logs and messages of both sides in their folder, and says where it is
    #[arg(long)]
    keep: bool,
}

impl Args {
    /// The machine, as options of a side.
    fn machine(&self, command: &mut Command) {
        command.args([
            "-m",
            &self.memory,
            "--cpu",
            &self.cpu,
            "--kernel",
            &self.kernel,
            "--append",
            &self.append,
        ]);
        if let Some(initrd) = &self.initrd {
            command.args(["--initrd", initrd]);
        }
        for drive in &self.drive {
            // One image cannot have two writers: each side keeps its changes to itself.
            let private = ["snapshot=", "overlay=", "readonly="].iter().any(|option| drive.contains(option));
            command.arg("--drive").arg(if private { drive.clone() } else { format!("{drive},snapshot=on") });
        }
    }
}

/// Plays the scene.
///
/// # Errors
/// The pair cannot be started, or does not do what it must within bounded time.
pub fn run(args: Args) -> Result<ExitCode> {
    let folder = processes::Folder::new()?;
    let result = scene::play(&args, &folder).and_then(|played| verdict::judge(&args, &folder, played));
    if args.keep {
        eprintln!("gemel: logs and messages of both sides are in {}", folder.keep().display());
    }
    result
}
