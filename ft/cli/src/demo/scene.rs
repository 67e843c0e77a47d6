//! What happens in the demo, step by step.
//!
//! Not responsible for: judging it (`verdict`).

use super::Args;
use super::processes::{self, Folder, Process, console, start};
use super::screen::{self, Screen};
use crate::console::type_in;
use anyhow::{Context, Result, bail};
use gemel_host::terminal;
use gemel_pair::protocol::{Channel, Role};
use gemel_pair::shell::{Console, Report, Shown, Trust, now};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The guest's prompt.
const PROMPT: &[u8] = b"gemel# ";
/// Prints the lines. The last one is not in the echo of the command.
const COMMAND: &str = "mkfifo s; n=0; while [ $n -lt 300 ]; do n=$((n+1)); echo line $n; read -t 0.01 x <>s; done; \
                       echo end of $n lines\r";
/// How many lines.
pub const LINES: u64 = 300;
const LAST: &[u8] = b"end of 300 lines\r\n";
/// The primary dies after this line.
const KILL_AT: &[u8] = b"line 120\r\n";
/// Typed to the survivor, and what answers.
const QUESTION: &str = "echo 6 times 7 is $((6*7))\r";
const ANSWER: &[u8] = b"6 times 7 is 42\r\n";
const POWER_OFF: &str = "poweroff -f\r";

/// A step may take so long. Booting takes seconds; a busy host has time.
const PATIENCE: Duration = Duration::from_secs(180);
/// The epoch of the pair: the primary has one before it has its secondary.
const PAIR_EPOCH: u64 = 2;
const FIGURES_INTERVAL: Duration = Duration::from_millis(100);

/// What was seen.
pub struct Played {
    /// All bytes that the console showed.
    pub shown: Vec<u8>,
    /// The scene was played, with a shell; otherwise the guest did what it liked.
    pub with_shell: bool,
    /// When the primary was killed.
    pub killed: Option<u64>,
    /// When the first output of the survivor was there.
    pub first_output: Option<u64>,
    /// The survivor's last figures.
    pub survivor: Option<Report>,
    /// The primary's last figures.
    pub primary: Option<Report>,
    /// Outputs that nobody fetched in time.
    pub missed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Boot,
    Lines,
    LinesOnSurvivor,
    Answer,
    PowerOff,
}

struct Scene<'a> {
    args: &'a Args,
    console: Arc<Console>,
    screen: Screen,
    primary: Process,
    step: Step,
    since: Instant,
    /// What has been shown when this step began.
    from: usize,
    first_byte: Option<Instant>,
    reports: [Option<Report>; 2],
    epoch: u64,
    played: Played,
}

/// Plays it to the end of the guest.
///
/// # Errors
/// Something takes too long or does not start.
pub fn play(args: &Args, folder: &Folder) -> Result<Played> {
    let screen = Screen::new();
    let (primary, mut secondary) = start(folder, args)?;
    let console = Arc::new(Console::new(
        &[console(folder, "primary"), console(folder, "secondary")],
        &Trust::local(),
        true,
    )?);
    let _raw = terminal::is_terminal().then(terminal::raw).transpose()?;
    if terminal::is_terminal() {
        let typed = Arc::clone(&console);
        std::thread::spawn(move || type_in(&typed));
    }
    let played = Played {
        shown: Vec::new(),
        with_shell: false,
        killed: None,
        first_output: None,
        survivor: None,
        primary: None,
        missed: 0,
    };
    let mut scene = Scene {
        args,
        console,
        screen,
        primary,
        step: Step::Boot,
        since: Instant::now(),
        from: 0,
        first_byte: None,
        reports: [None, None],
        epoch: 0,
        played,
    };
    scene.screen.say("two processes run one guest: a primary, and a secondary that follows its log");
    let result = scene.run(&mut secondary);
    scene.screen.leave();
    result.with_context(|| {
        let (first, second) = (scene.primary.messages(), secondary.messages());
        format!("at the step {:?}; the primary said: {first}; the secondary said: {second}", scene.step)
    })?;
    let [primary, survivor] = scene.reports;
    let dead = if scene.played.killed.is_some() { secondary } else { scene.primary };
    processes::finish(dead)?;
    Ok(Played { primary, survivor, ..scene.played })
}

impl Scene<'_> {
    fn run(&mut self, secondary: &mut Process) -> Result<()> {
        let shown = self.console.shown().clone();
        let mut asked = Instant::now();
        loop {
            if let Ok(shown) = shown.recv_timeout(Duration::from_millis(20))
                && self.show(shown)?
            {
                return Ok(());
            }
            if asked.elapsed() > FIGURES_INTERVAL {
                asked = Instant::now();
                self.console.ask_figures();
            }
            if let (Some(seconds), Some(first), None) =
                (self.args.kill_after, self.first_byte, self.played.killed)
                && first.elapsed().as_secs_f64() > seconds
            {
                self.kill()?;
            }
            let bounded = self.step != Step::Boot;
            if bounded && self.since.elapsed() > PATIENCE {
                bail!("nothing happens any more");
            }
            if self.played.killed.is_none() && self.primary.ended()?.is_some() {
                // Its console may still have told the end of the guest.
                std::thread::sleep(Duration::from_millis(200));
                while let Ok(shown) = shown.try_recv() {
                    if self.show(shown)? {
                        return Ok(());
                    }
                }
                bail!("the primary ended by itself");
            }
            if let Some(status) = secondary.ended()?
                && self.played.killed.is_some()
            {
                while let Ok(shown) = shown.recv_timeout(Duration::from_millis(200)) {
                    if self.show(shown)? {
                        return Ok(());
                    }
                }
                bail!("the survivor ended: {status}");
            }
        }
    }

    /// Takes what the console shows; `true` at the end of the guest.
    fn show(&mut self, shown: Shown) -> Result<bool> {
        match shown {
            Shown::Output(Channel::Serial(0), bytes) => {
                self.first_byte.get_or_insert_with(Instant::now);
                if self.played.killed.is_some() && self.epoch > PAIR_EPOCH {
                    self.played.first_output.get_or_insert_with(now);
                }
                self.screen.guest(&bytes)?;
                self.played.shown.extend_from_slice(&bytes);
                self.go_on()?;
            }
            Shown::Live(_, epoch) => self.epoch = epoch,
            Shown::Missed(count) => self.played.missed += count,
            Shown::Figures(side, report) => {
                let side_that_leads = usize::from(self.played.killed.is_some());
                if side == side_that_leads {
                    let mut line = screen::line(&report, self.reports[side].as_ref());
                    if report.figures.role == Role::Secondary {
                        line.insert_str(0, "survivor: ");
                    }
                    self.screen.figures(&line);
                }
                self.reports[side] = Some(*report);
            }
            Shown::GuestEnded => return Ok(true),
            Shown::Replaced => bail!("another console took this one's place"),
            Shown::Output(..) | Shown::Reached(_) | Shown::Gone(_) => {}
        }
        Ok(false)
    }

    fn seen(&self, what: &[u8]) -> bool {
        let new = &self.played.shown[self.from..];
        new.windows(what.len()).any(|window| window == what)
    }

    fn enter(&mut self, step: Step) {
        self.step = step;
        self.since = Instant::now();
        self.from = self.played.shown.len();
    }

    /// The next step, when the guest has printed what this one waits for.
    fn go_on(&mut self) -> Result<()> {
        match self.step {
            Step::Boot if self.args.kill_after.is_none() && self.seen(PROMPT) => {
                self.played.with_shell = true;
                self.enter(Step::Lines);
                self.console.typed(COMMAND.as_bytes());
            }
            Step::Lines if self.seen(KILL_AT) => {
                self.kill()?;
                self.enter(Step::LinesOnSurvivor);
            }
            Step::LinesOnSurvivor if self.seen(LAST) => {
                self.enter(Step::Answer);
                self.console.typed(QUESTION.as_bytes());
            }
            Step::Answer if self.seen(ANSWER) => {
                self.enter(Step::PowerOff);
                self.console.ask_figures();
                self.console.typed(POWER_OFF.as_bytes());
            }
            _ => {}
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.played.killed = Some(now());
        self.primary.kill()?;
        self.screen.say("the primary is dead: SIGKILL");
        Ok(())
    }
}
