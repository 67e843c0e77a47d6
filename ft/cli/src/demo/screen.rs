//! The guest's console and a line of figures beneath it.
//!
//! Not responsible for: where either comes from.

use gemel_pair::shell::Report;
use rustix::termios::tcgetwinsize;
use std::io::{self, IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

/// Between two lines of figures where they cannot be overwritten.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Standard output: on a terminal the console scrolls above a fixed last row; elsewhere figures are lines among others, on
/// standard error.
pub struct Screen {
    rows: Option<u16>,
    columns: usize,
    told: Option<Instant>,
}

impl Screen {
    /// Takes the terminal's last row, if there is a terminal.
    pub fn new() -> Self {
        let size = tcgetwinsize(stdout()).ok().filter(|size| size.ws_row > 4 && stdout().is_terminal());
        let columns = size.map_or(0, |size| usize::from(size.ws_col));
        let screen = Self { rows: size.map(|size| size.ws_row), columns, told: None };
        if let Some(rows) = screen.rows {
            // A scrolling region above the last row (DECSTBM), and the cursor into it.
            print!("\x1b[2J\x1b[1;{}r\x1b[1;1H", rows - 1);
        }
        screen
    }

    /// Bytes from the guest.
    ///
    /// # Errors
    /// The host's.
    pub fn guest(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// A line of this program among the guest's.
    pub fn say(&mut self, line: &str) {
        match self.rows {
            Some(_) => print!("\r\n\x1b[7m{line}\x1b[0m\r\n"),
            None => println!("\n[{line}]"),
        }
        let _ = stdout().flush();
    }

    /// The figures.
    pub fn figures(&mut self, line: &str) {
        match self.rows {
            // Save the cursor, go to the last row, reverse video, and back (DECSC, CUP, DECRC).
            // What does not fit would scroll the screen.
            Some(rows) => {
                let line: String = line.chars().take(self.columns).collect();
                print!("\x1b7\x1b[{rows};1H\x1b[2K\x1b[7m{line}\x1b[0m\x1b8");
            }
            None if self.told.is_none_or(|at| at.elapsed() > PLAIN_INTERVAL) => {
                self.told = Some(Instant::now());
                eprintln!("[{line}]");
            }
            None => {}
        }
        let _ = stdout().flush();
    }

    /// Gives the terminal back.
    pub fn leave(&mut self) {
        if let Some(rows) = self.rows.take() {
            print!("\x1b[r\x1b[{rows};1H\x1b[2K\r");
            let _ = stdout().flush();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Figures as one line. `before` is an earlier report of the same side, for rates.
pub fn line(report: &Report, before: Option<&Report>) -> String {
    let Report { figures, log, now, .. } = report;
    let rate = |count: fn(&Report) -> u64| {
        let earlier = before.filter(|b| b.now < *now);
        earlier.map_or(0, |b| count(report).saturating_sub(count(b)) * 1_000_000_000 / (now - b.now))
    };
    format!(
        "{:?} epoch {} | at {:.1}M, {:.1} s | lag {:.1} ms | log {} B; B/s input {} disk {} digest {} | outputs held {} \
         released {}",
        figures.phase,
        figures.epoch,
        figures.position as f64 / 1e6,
        figures.guest_time as f64 / 1e9,
        figures.lag as f64 / 1e6,
        log.total(),
        rate(|r| r.log.input),
        rate(|r| r.log.disk),
        rate(|r| r.log.digest),
        figures.held,
        figures.released,
    )
}
