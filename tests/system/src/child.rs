//! Child processes that cannot outlive their time: each has a limit, and none survives the value that stands for it.
//!
//! Not responsible for what the processes mean. It signals only processes that it started itself.

use crate::terminal::Terminal;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How often a running process is looked at. Adds at most this to a measured time.
const POLL: Duration = Duration::from_millis(5);

/// A process under way. Dropping it kills it.
#[derive(Debug)]
pub struct Bounded {
    child: Child,
    shown: String,
    started: Instant,
    limit: Duration,
    output: TempDir,
}

/// What a process that ended by itself left behind.
#[derive(Debug)]
pub struct Finished {
    /// Exit code or signal
    pub status: ExitStatus,
    /// All of its standard output; bytes that are no UTF-8 are replaced
    pub stdout: String,
    /// All of its standard error, likewise
    pub stderr: String,
    /// From start to end on the host's clock
    pub wall: Duration,
}

impl Bounded {
    /// Starts `command` with empty input and captured output. `limit` counts from now.
    pub fn start(command: &mut Command, limit: Duration) -> Result<Self> {
        // Files and not pipes: a child that prints much never waits for a reader.
        let output = tempfile::tempdir()?;
        let stdout = File::create(output.path().join("stdout"))?;
        Self::spawn(command.stdin(Stdio::null()).stdout(stdout), limit, output)
    }

    /// Starts `command` with somebody else at its standard input and output.
    pub fn start_attached(command: &mut Command, limit: Duration) -> Result<(Self, Terminal)> {
        let (ours, theirs) = UnixStream::pair()?;
        let output = tempfile::tempdir()?;
        command.stdin(OwnedFd::from(theirs.try_clone()?)).stdout(OwnedFd::from(theirs));
        let running = Self::spawn(command, limit, output)?;
        // The command holds ends of its own, which would keep the connection open after the child is gone.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok((running, Terminal::on(ours)))
    }

    fn spawn(command: &mut Command, limit: Duration, output: TempDir) -> Result<Self> {
        let shown = format!("{command:?}");
        let stderr = File::create(output.path().join("stderr"))?;
        let child = command.stderr(stderr).spawn().with_context(|| format!("cannot start {shown}"))?;
        Ok(Self { child, shown, started: Instant::now(), limit, output })
    }

    /// The process id, for as long as this value lives.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far on standard output and standard error.
    #[must_use]
    pub fn printed(&self) -> (String, String) {
        let read = |name| {
            String::from_utf8_lossy(&fs::read(self.output.path().join(name)).unwrap_or_default()).into_owned()
        };
        (read("stdout"), read("stderr"))
    }

    /// Waits until it has printed `text` on standard error.
    pub fn wait_for_message(&mut self, text: &str) -> Result<()> {
        while !self.printed().1.contains(text) {
            let ended = self.child.try_wait()?.is_some();
            if ended || self.started.elapsed() > self.limit {
                bail!("no message {text:?}: {}\n{}", self.shown, tail(&self.printed().1));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the end. An error after `limit`, with the last lines of what was printed.
    pub fn finish(mut self) -> Result<Finished> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if self.started.elapsed() > self.limit {
                self.kill()?;
                let (stdout, stderr) = self.printed();
                bail!(
                    "still running after {:?}: {}\n{}\n{}",
                    self.limit,
                    self.shown,
                    tail(&stdout),
                    tail(&stderr)
                );
            }
            thread::sleep(POLL);
        };
        let wall = self.started.elapsed();
        let (stdout, stderr) = self.printed();
        Ok(Finished { status, stdout, stderr, wall })
    }

    /// As [`Self::finish`], but an exit code other than 0 is an error too.
    pub fn succeed(self) -> Result<Finished> {
        let shown = self.shown.clone();
        let finished = self.finish()?;
        if !finished.status.success() {
            bail!("{}: {shown}\n{}\n{}", finished.status, tail(&finished.stdout), tail(&finished.stderr));
        }
        Ok(finished)
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        // Both fail when the process has ended and was waited for, which is the normal case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to a successful end within `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    Bounded::start(command, limit)?.succeed()
}

/// The last lines of a text, enough to see why something failed.
#[must_use]
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_exit_code_come_back() {
        let finished = Bounded::start(&mut shell("echo out; echo err >&2; exit 3"), Duration::from_secs(20))
            .unwrap()
            .finish()
            .unwrap();
        assert_eq!(
            (finished.status.code(), finished.stdout.as_str(), finished.stderr.as_str()),
            (Some(3), "out\n", "err\n")
        );
        let error =
            run(&mut shell("echo reason >&2; exit 3"), Duration::from_secs(20)).unwrap_err().to_string();
        assert!(error.contains("reason"), "{error}");
    }

    #[test]
    fn somebody_else_may_hold_input_and_output() {
        let limit = Duration::from_secs(20);
        let (child, mut terminal) =
            Bounded::start_attached(&mut shell("read line; echo $line $line; echo done >&2"), limit).unwrap();
        terminal.type_text("twice\n").unwrap();
        assert_eq!(terminal.finish(limit).unwrap(), b"twice twice\n");
        assert_eq!(child.succeed().unwrap().stderr, "done\n");
    }

    #[test]
    fn too_long_is_an_error_and_the_process_is_gone() {
        let child =
            Bounded::start(&mut shell("echo before; exec sleep 1000"), Duration::from_millis(300)).unwrap();
        let process = format!("/proc/{}", child.id());
        let error = child.finish().unwrap_err().to_string();
        assert!(error.contains("still running") && error.contains("before"), "{error}");
        assert!(!fs::exists(process).unwrap());
    }
}
