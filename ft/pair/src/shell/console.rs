//! The console's client on real connections.
//!
//! Not responsible for: the terminal (the command line's), exactly-once (`protocol`).

use super::address::Address;
use super::connection::{Outgoing, attend, spawn};
use super::error::PairError;
use super::side::Report;
use super::trust::Trust;
use crate::protocol::{Channel, ClientAction, ClientEvent, ConsoleClient, ToClient, ToServer};
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use std::io;
use std::thread::sleep;
use std::time::Duration;

/// How often a side that is not there is tried again. Short: a survivor that is known is connected already, and one
/// that comes up should be found before its peer dies.
const RETRY: Duration = Duration::from_millis(50);

/// What a console shows.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Output bytes, each once and in order.
    Output(Channel, Vec<u8>),
    /// This side, in this epoch, is what the console talks to.
    Live(usize, u64),
    /// So many outputs are gone because nobody fetched them in time.
    Missed(u64),
    /// Figures of a side.
    Figures(usize, Box<Report>),
    /// A side can be reached.
    Reached(usize),
    /// A side cannot be reached any more.
    Gone(usize),
    /// The guest ended.
    GuestEnded,
    /// Another client is the console now.
    Replaced,
}

enum Doing {
    Connected(usize, Outgoing<ToServer>),
    Closed(usize),
    Message(usize, ToClient),
    Typed(Vec<u8>),
    AskFigures,
}

/// A console that is connected to all sides of a pair.
pub struct Console {
    doing: Sender<Doing>,
    shown: Receiver<Shown>,
}

impl Console {
    /// Connects to the sides, and again whenever a connection breaks. With `attach` it becomes the guest's console, in
    /// place of any other; without it can only ask for figures.
    ///
    /// # Errors
    /// [`PairError::Thread`], [`PairError::NoKeys`].
    pub fn new(sides: &[Address], trust: &Trust, attach: bool) -> Result<Self, PairError> {
        sides.iter().try_for_each(|side| trust.check(side))?;
        let (doing, to_do) = unbounded();
        let (show, shown) = unbounded();
        for (side, address) in sides.iter().cloned().enumerate() {
            let (doing, trust) = (doing.clone(), trust.clone());
            spawn("side", move || keep_connected(side, &address, &trust, &doing))?;
        }
        let count = sides.len();
        spawn("console", move || Core::new(count, attach, show).run(&to_do))?;
        Ok(Self { doing, shown })
    }

    /// The user typed.
    pub fn typed(&self, bytes: &[u8]) {
        let _ = self.doing.send(Doing::Typed(bytes.to_vec()));
    }

    /// Asks all sides for their figures; they come as [`Shown::Figures`].
    pub fn ask_figures(&self) {
        let _ = self.doing.send(Doing::AskFigures);
    }

    /// What is to be shown.
    pub fn shown(&self) -> &Receiver<Shown> {
        &self.shown
    }
}

fn keep_connected(side: usize, address: &Address, trust: &Trust, doing: &Sender<Doing>) {
    loop {
        let connected = address.connect(trust);
        // A side that is not there is nothing to tell of; one that is somebody else is.
        if let Err(why) = &connected
            && matches!(why.kind(), io::ErrorKind::InvalidData | io::ErrorKind::TimedOut)
        {
            trust.complaints().say(&address.to_string(), &why.to_string());
        }
        if let Ok(stream) = connected {
            let (heard, (closing, closed)) = (doing.clone(), bounded::<()>(1));
            let on_message = move |message| heard.send(Doing::Message(side, message)).is_ok();
            let on_close = move || drop(closing);
            if let Ok(outgoing) = attend(stream, "side", on_message, on_close) {
                if doing.send(Doing::Connected(side, outgoing)).is_err() {
                    return;
                }
                let _ = closed.recv();
            }
        }
        if doing.send(Doing::Closed(side)).is_err() {
            return;
        }
        sleep(RETRY);
    }
}

/// The client's state machine and its connections.
struct Core {
    client: ConsoleClient,
    attach: bool,
    sides: Vec<Option<Outgoing<ToServer>>>,
    /// Sides that were said to be gone.
    gone: Vec<bool>,
    show: Sender<Shown>,
}

impl Core {
    fn new(sides: usize, attach: bool, show: Sender<Shown>) -> Self {
        let sides: Vec<_> = (0..sides).map(|_| None).collect();
        Self { client: ConsoleClient::new(), attach, gone: vec![false; sides.len()], sides, show }
    }

    fn run(mut self, to_do: &Receiver<Doing>) {
        for doing in to_do {
            let event = match doing {
                Doing::Connected(side, outgoing) => {
                    self.sides[side] = Some(outgoing);
                    self.gone[side] = false;
                    let _ = self.show.send(Shown::Reached(side));
                    if !self.attach {
                        continue;
                    }
                    ClientEvent::Connected(side)
                }
                Doing::Closed(side) => {
                    self.sides[side] = None;
                    if !std::mem::replace(&mut self.gone[side], true) {
                        let _ = self.show.send(Shown::Gone(side));
                    }
                    ClientEvent::Closed(side)
                }
                Doing::Message(side, message) => ClientEvent::Message(side, message),
                Doing::Typed(bytes) => ClientEvent::Typed(bytes),
                Doing::AskFigures => {
                    self.sides.iter().flatten().for_each(|side| side.send(&ToServer::Figures));
                    continue;
                }
            };
            for action in self.client.handle(event) {
                let shown = match action {
                    ClientAction::Send(side, message) => {
                        if let Some(outgoing) = &self.sides[side] {
                            outgoing.send(&message);
                        }
                        continue;
                    }
                    ClientAction::Close(side) => {
                        if let Some(outgoing) = &self.sides[side] {
                            outgoing.close();
                        }
                        continue;
                    }
                    ClientAction::Figures(side, json) => match serde_json::from_str(&json) {
                        Ok(report) => Shown::Figures(side, Box::new(report)),
                        Err(_) => continue,
                    },
                    ClientAction::Show(channel, bytes) => Shown::Output(channel, bytes),
                    ClientAction::Missed(count) => Shown::Missed(count),
                    ClientAction::Live(side, epoch) => Shown::Live(side, epoch),
                    ClientAction::GuestEnded => Shown::GuestEnded,
                    ClientAction::Replaced => Shown::Replaced,
                };
                if self.show.send(shown).is_err() {
                    return;
                }
            }
        }
    }
}
