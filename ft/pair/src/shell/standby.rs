//! A standby: waits for a leader, becomes a copy of its machine, follows it, and can go on with it.
//!
//! Not responsible for: what a part of the machine means (`clone`), building the machine (the caller's).

use super::clone::{Part, Received, Receiving};
use super::connection::spawn;
use super::error::PairError;
use super::feed::{Feed, FeedSource};
use super::listener::Listener;
use super::run::{Ended, Log, Options, Sinks, answer, attend_primary, ended, follow, start};
use super::side::{Coming, Side, Surroundings};
use super::sink::PairSink;
use super::stream::Stream;
use crate::protocol::{Event, Hello, Message, PROTOCOL, PeerId, Role, StopReason};
use crossbeam::channel::{Receiver, bounded, unbounded};
use gemel_log::Header;
use gemel_machine::{At, Machine, World};
use gemel_replay::{Handover, NoOutput, Record, Replay, ReplayDisks, Start};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// How often somebody who waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// A standby that a leader has found.
pub struct Standby {
    stream: Stream,
    hello: Hello,
    header: Header,
}

impl Standby {
    /// Waits for a leader whose guest runs; `None` when somebody asked the process to end. Whoever connects later finds that it is
    /// too late.
    ///
    /// # Errors
    /// [`PairError::Thread`].
    pub fn wait(listener: Listener, asked_to_quit: impl Fn() -> bool) -> Result<Option<Self>, PairError> {
        let (found, find) = bounded(0);
        spawn("listener", move || {
            loop {
                let Ok(stream) = listener.accept() else {
                    // Too many open files, most likely: leaders come again.
                    sleep(LOOK);
                    continue;
                };
                if let Ok(hello) = stream.first_message() {
                    let _ = found.send((stream, hello));
                }
            }
        })?;
        while !asked_to_quit() {
            let Ok((stream, Message::Hello(hello))) = find.recv_timeout(LOOK) else { continue };
            if hello.role != Role::Primary || hello.protocol != PROTOCOL || !hello.running {
                continue;
            }
            let Ok((_, header)) = Feed::new(&hello.log_header) else { continue };
            return Ok(Some(Self { stream, hello, header }));
        }
        Ok(None)
    }

    /// What the leader runs: the machine is to be built as this says, as it was at power-on.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Becomes a copy of the leader's machine in `machine`, follows it, and goes on alone under `live` when the leader is gone. `log`
    /// makes the log of the copy, whose start it gets.
    ///
    /// # Errors
    /// Trouble with the host.
    #[allow(clippy::too_many_arguments)] // two machines' worth of parts, each given once
    pub fn run<L: World>(
        self,
        options: &Options,
        machine: &mut Machine,
        disks: Box<dyn ReplayDisks>,
        live: impl FnOnce(Handover<NoOutput>, At) -> L,
        log: impl FnOnce(&Header, &mut dyn FnMut() -> Result<Start, PairError>) -> Result<Log, PairError>,
        surroundings: Box<dyn Surroundings>,
    ) -> Result<Ended, PairError> {
        let Self { stream, hello, header } = self;
        let clients = options.listen_for_clients()?;
        let ours = answer(&hello, options, machine)?;
        let (coming, comes) = unbounded();
        let side = start(ours, &header, options, surroundings, clients, Some(coming))?;
        let leader = attend_primary(&side, stream, hello)?;
        let Some((feed, header, received)) = receive(&side, leader, machine, &comes)? else {
            let reason = side.wait_stopped();
            return Ok(ended(&side, reason, None, None));
        };

        let Received { progress } = received;
        let mut start = || {
            let snapshot = machine.snapshot().map_err(|e| PairError::Run(e.to_string()))?;
            Ok(Start { progress: progress.clone(), snapshot })
        };
        let sinks: Sinks = (log(&header, &mut start)?, PairSink::new(Arc::clone(&side), &header)?);
        let digest = machine.digest().map_err(|e| PairError::Run(e.to_string()))?;
        side.event(Event::Restored(digest));
        let replay = Replay::resume(FeedSource::new(feed), NoOutput, disks, progress.clone());
        follow(&side, machine, Record::resume(replay, sinks, &header, progress), live, &header)
    }
}

/// Takes the machine as it comes. `None`: this side stopped before it was whole.
fn receive(
    side: &Arc<Side>,
    leader: PeerId,
    machine: &mut Machine,
    comes: &Receiver<Coming>,
) -> Result<Option<(Arc<Feed>, Header, Received)>, PairError> {
    let say = |part: &Part| {
        side.send(leader, &part.to_message().0);
    };
    let mut receiving = Receiving::begin(machine, side.disks(), say);
    let mut cut = None;
    while !side.must_stop() {
        let Ok(coming) = comes.recv_timeout(LOOK) else { continue };
        let bytes = match coming {
            Coming::Cut(feed, header) => {
                cut = Some((feed, header));
                continue;
            }
            Coming::Part(bytes) => bytes,
        };
        let part = Part::read(&bytes).ok_or("a part that is none".to_owned());
        match part.and_then(|part| receiving.take(machine, side.disks(), part)) {
            Ok(None) => say(&Part::Taken(bytes.0.len() as u64)),
            Ok(Some(received)) => {
                if let Some((feed, header)) = cut {
                    return Ok(Some((feed, *header, received)));
                }
                return Err(PairError::Run("the leader's machine came without its place".into()));
            }
            Err(why) => {
                side.say(&format!("the leader's machine cannot be taken over: {why}"));
                side.event(Event::PeerClosed(leader));
            }
        }
    }
    Ok(None)
}

impl Ended {
    /// Whether this side lost its role, or never had one, and may wait for another.
    pub fn may_wait_again(&self) -> bool {
        matches!(
            self.reason,
            Some(
                StopReason::Lost | StopReason::NeverInSync | StopReason::HandedOver | StopReason::Refused(_)
            )
        )
    }
}
