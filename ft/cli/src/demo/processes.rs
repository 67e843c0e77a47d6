//! The pair's two processes.
//!
//! Not responsible for: what is done to them (`scene`).

use super::Args;
use anyhow::{Context, Result, bail};
use gemel_pair::shell::Address;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A folder that is gone with its value.
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder for this process.
    ///
    /// # Errors
    /// The host's.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("gemel-demo-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path))
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Leaves the folder where it is.
    pub fn keep(self) -> PathBuf {
        let path = self.0.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One side's process. Dropping it kills it.
pub struct Process {
    child: Child,
    messages: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(name: &str, folder: &Folder, place: [&str; 2], args: &Args) -> Result<Self> {
        let messages = folder.file(&format!("{name}.messages"));
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.arg(name).args(place);
        command.arg("--console").arg(console(folder, name).to_string());
        command.arg("--arbiter").arg(folder.file("arbiter"));
        command.arg("--log").arg(folder.file(&format!("{name}.log")));
        // The killed primary's connection closes at once. A busy desktop that starves it for a moment is no reason to take its
        // guest away in the middle of the scene.
        // Both processes are on this host, and so is what they say to each other.
        command.arg("--insecure");
        command.args(["--vm", "demo", "--silence", "1000", "--drop", "2000"]);
        args.machine(&mut command);
        // In its own process group: Ctrl-C is for this program, which then ends both.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&messages)?)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        Ok(Self { child, messages })
    }

    /// What it said.
    pub fn messages(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_default().trim_end().to_owned()
    }

    /// SIGKILL: the process gets no chance to do anything.
    ///
    /// # Errors
    /// The host's.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The host's.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It takes too long.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("a side of the pair did not end with its guest");
            }
            sleep(Duration::from_millis(5));
        }
    }
}

/// Where a side's console is.
pub fn console(folder: &Folder, name: &str) -> Address {
    Address::Unix(folder.file(&format!("{name}.console")))
}

/// Starts a primary and, once it listens, a secondary.
///
/// # Errors
/// What the side that does not start says.
pub fn start(folder: &Folder, args: &Args) -> Result<(Process, Process)> {
    let mut primary = Process::start("primary", folder, ["--listen", "127.0.0.1:0"], args)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    let address = loop {
        let messages = primary.messages();
        if let Some((_, address)) = messages.rsplit_once("waiting for a secondary on ") {
            break address.to_owned();
        }
        if primary.ended()?.is_some() || Instant::now() > deadline {
            bail!("the primary does not start: {messages}");
        }
        sleep(Duration::from_millis(5));
    };
    let secondary = Process::start("secondary", folder, ["--connect", &address], args)?;
    Ok((primary, secondary))
}

/// Waits until a side has ended with its guest.
///
/// # Errors
/// It does not end, or not well.
pub fn finish(mut process: Process) -> Result<()> {
    let status = process.wait(Duration::from_secs(20))?;
    if !status.success() {
        bail!("the side that was live last ended with {status}: {}", process.messages());
    }
    Ok(())
}

/// The bytes that the guest sent to its console according to a log, from a replay of it.
///
/// # Errors
/// The log cannot be replayed to its end.
pub fn replay(folder: &Folder, log: &Path) -> Result<Vec<u8>> {
    let serial = folder.file("replayed");
    let output = Command::new(std::env::current_exe()?)
        .arg("replay")
        .arg(log)
        .arg("--serial")
        .arg(format!("file:{}", serial.display()))
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        bail!(
            "the survivor's log cannot be replayed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(fs::read(serial)?)
}
