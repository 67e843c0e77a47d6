//! `gemel console` as a child: what it shows, with moments, and what is typed into it.

use anyhow::{Context, Result, bail};
use gemel_system_tests::gemel::gemel;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub struct Console {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    events: PathBuf,
}

impl Drop for Console {
    fn drop(&mut self) {
        // Both fail when it has ended and was waited for, which is the normal case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Console {
    pub fn start(folder: &Path, sides: [&str; 2]) -> Result<Self> {
        let events = folder.join("events");
        let mut child = gemel("console")?
            .args(sides)
            .arg("--events")
            .arg(&events)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the console")?;
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut out, filled) = (child.stdout.take().context("no pipe")?, Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                filled.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Ok(Self { child, shown, events })
    }

    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("no pipe")?;
        writeln!(stdin, "{line}").context("the console takes no input any more")
    }

    pub fn shown(&self) -> Vec<u8> {
        self.shown.lock().unwrap().clone()
    }

    pub fn wait_for(&self, text: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !String::from_utf8_lossy(&self.shown()).contains(text) {
            if Instant::now() > deadline {
                bail!(
                    "'{text}' does not come; the console shows:\n{}",
                    String::from_utf8_lossy(&self.shown())
                );
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The side that went live in this epoch, if one did.
    pub fn side_live_in(&self, epoch: u64) -> Result<Option<usize>> {
        let events = self.events()?;
        let live = events.iter().find(|e| e["event"] == "live" && e["epoch"] == epoch);
        Ok(live.and_then(|e| e["side"].as_u64()).map(|side| side as usize))
    }

    /// Waits until a side is live in this epoch.
    pub fn wait_for_epoch(&self, epoch: u64, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while self.side_live_in(epoch)?.is_none() {
            if Instant::now() > deadline {
                bail!("nobody goes live in epoch {epoch}: {:?}", self.events()?);
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until the console was told of the guest's end.
    pub fn finish(&mut self, patience: Duration) -> Result<Vec<u8>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // The pipe's end comes with the process's, or a moment later.
                sleep(Duration::from_millis(50));
                if !status.success() {
                    bail!("the console ended with {status}");
                }
                return Ok(self.shown());
            }
            if Instant::now() > deadline {
                bail!(
                    "the console was not told of the guest's end; it shows:\n{}",
                    String::from_utf8_lossy(&self.shown())
                );
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// What it noted, in order.
    pub fn events(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.events)?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}
