//! The two sides from power-on to their end.
//!
//! Not responsible for: building machines and live worlds (the caller's), decisions (`protocol`).

use super::address::Address;
use super::arbiter::Arbiter;
use super::clone::serve as serve_clone;
use super::connection::{attend, spawn};
use super::error::PairError;
use super::feed::{Feed, FeedSource};
use super::gateway::keep_connected;
use super::listener::Listener;
use super::protect::look_for_standbys;
use super::side::{Coming, Report, Side, Surroundings};
use super::sink::PairSink;
use super::stream::Stream;
use super::trust::Trust;
use super::world::Paired;
use crate::protocol::{
    Changed, Event, Goodbye, Hello, MemberId, Membership, Message, PROTOCOL, PeerId, Role, StopReason,
    Timing, ToServer,
};
use crossbeam::channel::{Receiver, Sender, unbounded};
use gemel_log::{Header, LogWriter};
use gemel_machine::{At, Machine, Pause, RunError, Stop, TimeBase, World};
use gemel_replay::{Conclusion, Diverged, EntrySource, Handover, NoOutput, Record, Replay, ReplayDisks};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// How long what was said last may take to go out.
const DRAIN: Duration = Duration::from_millis(500);

/// Secondaries of a VM.
const SECONDARIES: usize = 1;

/// What both sides need to know.
pub struct Options {
    /// The VM's name, for the arbiter and the peer.
    pub vm: String,
    /// The protocol's times; what a count is worth is the log's to say.
    pub timing: Timing,
    /// Where clients find this side.
    pub console: Address,
    /// Holds who leads and who is in sync.
    pub arbiter: Arc<dyn Arbiter>,
    /// The gateway of the guest's network, if it has one.
    pub gateway: Option<Address>,
    /// Who may connect.
    pub trust: Trust,
    /// Where standbys wait that this side may take once it leads, the first first.
    pub standbys: Vec<Address>,
    /// How long the guest may stand still for a standby to get the rest of its machine.
    pub max_pause: Duration,
    /// Where what leaves is written down.
    pub ledger: Option<PathBuf>,
}

impl Options {
    pub(super) fn listen_for_clients(&self) -> Result<Listener, PairError> {
        self.console.listen(&self.trust.with_consoles())
    }
}

/// How a side ended.
#[derive(Debug)]
pub struct Ended {
    /// Why the protocol stopped; `None` when somebody asked the process to end.
    pub reason: Option<StopReason>,
    /// How the guest ended, if it did here.
    pub pause: Option<Pause>,
    /// What differed, on a secondary that diverged.
    pub diverged: Option<Box<Diverged>>,
    /// The figures at the end.
    pub report: Report,
}

pub(super) type Log = Option<LogWriter<File>>;
pub(super) type Sinks = (Log, PairSink);

/// A side that greets with `hello`, with the threads that every side has. `coming` is where a standby's machine goes.
pub(super) fn start(
    hello: Hello,
    header: &Header,
    options: &Options,
    surroundings: Box<dyn Surroundings>,
    clients: Listener,
    coming: Option<Sender<Coming>>,
) -> Result<Arc<Side>, PairError> {
    let (change, changes) = unbounded();
    let times = timing(options, header);
    let side = Side::new(hello, times, surroundings, SECONDARIES, options, (change, coming))?;
    start_threads(&side, options, changes, clients)?;
    Ok(side)
}

fn start_threads(
    side: &Arc<Side>,
    options: &Options,
    changes: Receiver<Membership>,
    clients: Listener,
) -> Result<(), PairError> {
    look_for_standbys(side, &options.trust)?;
    let (ticking, tick) = (Arc::clone(side), Duration::from_nanos(options.timing.tick));
    spawn("clock", move || {
        loop {
            sleep(tick);
            ticking.tick();
        }
    })?;
    let (asking, arbiter, vm) = (Arc::clone(side), Arc::clone(&options.arbiter), options.vm.clone());
    spawn("arbiter", move || {
        for next in changes {
            asking.event(Event::Changed(arbiter.change(&vm, &next).ok()));
        }
    })?;
    if let Some(gateway) = &options.gateway {
        keep_connected(side, gateway, &options.trust)?;
    }
    let serving = Arc::clone(side);
    spawn("clients", move || {
        for id in 0.. {
            match clients.accept() {
                Ok(stream) => serve(&serving, id, stream),
                // Too many open files, most likely: clients come again.
                Err(_) => sleep(Duration::from_millis(50)),
            }
        }
    })
}

fn serve(side: &Arc<Side>, id: u64, stream: Stream) {
    let (hearing, closing) = (Arc::clone(side), Arc::clone(side));
    let (ready, wait) = unbounded::<()>();
    let client = attend(
        stream,
        "client",
        move |message: ToServer| {
            // Not before the side knows where answers go.
            let _ = wait.recv();
            hearing.event(Event::Client(id, message));
            true
        },
        move || closing.client_closed(id),
    );
    if let Ok(client) = client {
        side.add_client(id, client);
    }
    drop(ready);
}

/// What a side says to the leader that it is to follow.
pub(super) fn answer(leader: &Hello, options: &Options, machine: &Machine) -> Result<Hello, PairError> {
    Ok(Hello {
        vm: options.vm.clone(),
        role: Role::Secondary,
        member: draw_member()?,
        machine: machine.id(),
        ..leader.clone()
    })
}

/// Attends to the connection to a primary whose `hello` has been read from it. What follows is heard only after that: the
/// primary starts as soon as it has this side's greeting.
pub(super) fn attend_primary(side: &Arc<Side>, stream: Stream, hello: Hello) -> Result<PeerId, PairError> {
    let (hearing, closing) = (Arc::clone(side), Arc::clone(side));
    let (ready, wait) = unbounded::<()>();
    let id = side.name_peer();
    let on_message = move |message| {
        let _ = wait.recv(); // returns at once when `ready` is gone
        hearing.event(Event::PeerMessage(id, message));
        true
    };
    side.add_peer(id, attend(stream, "peer", on_message, move || closing.peer_closed(id))?);
    side.event(Event::PeerMessage(id, Message::Hello(hello)));
    drop(ready);
    Ok(id)
}

/// The primary, before its machine runs.
pub struct Primary {
    side: Arc<Side>,
    sink: PairSink,
    /// Where a secondary can connect; nowhere: the guest starts alone.
    listens_on: Option<Address>,
}

impl Primary {
    /// Claims an epoch, and waits for nobody yet: a secondary can connect from here on. Without an address to listen on the guest starts
    /// alone, and standbys are copied to.
    ///
    /// # Errors
    /// Addresses or an arbiter that cannot be used.
    pub fn new(
        options: &Options,
        at: Option<&Address>,
        header: &Header,
        surroundings: Box<dyn Surroundings>,
    ) -> Result<Self, PairError> {
        let listen = |address: &Address| address.listen(&options.trust).map(|l| (l.address(address), l));
        let listener = at.map(listen).transpose()?;
        let clients = options.listen_for_clients()?;
        let member = draw_member()?;
        let epoch = first_epoch(options, member)?;
        let hello = Hello {
            protocol: PROTOCOL,
            vm: options.vm.clone(),
            role: Role::Primary,
            member,
            epoch,
            running: listener.is_none(),
            machine: header.machine.id(),
            log_header: header.encode()?.0,
        };
        let side = start(hello, header, options, surroundings, clients, None)?;
        let listens_on =
            listener.map(|(address, listener)| wait_for_secondary(&side, listener).map(|()| address));
        let listens_on = listens_on.transpose()?;
        let sink = PairSink::new(Arc::clone(&side), header)?;
        Ok(Self { side, sink, listens_on })
    }

    /// Where a secondary can connect: with the port that the host chose, if it was to choose one.
    pub fn listens_on(&self) -> Option<&Address> {
        self.listens_on.as_ref()
    }

    /// Waits for the secondary and runs the machine under `live`, to the end of the guest or of this side.
    ///
    /// # Errors
    /// Trouble with the host.
    pub fn run(
        self,
        machine: &mut Machine,
        live: impl World,
        log: Log,
        header: &Header,
    ) -> Result<Ended, PairError> {
        let Self { side, mut sink, listens_on } = self;
        if listens_on.is_some() && !side.wait_started() {
            let reason = side.wait_stopped();
            return Ok(ended(&side, reason, None, None));
        }
        sink.send_to(side.peers_from_power_on());
        let record = Record::new(live, (log, sink), header);
        lead(&side, machine, record, header)
    }
}

/// Takes one secondary at a time, until one fits. Later ones find nobody listening.
fn wait_for_secondary(side: &Arc<Side>, listener: Listener) -> Result<(), PairError> {
    let waiting = Arc::clone(side);
    spawn("listener", move || {
        while !waiting.is_started() {
            let Ok(stream) = listener.accept() else { return };
            let (closed, gone) = unbounded::<()>();
            let (hearing, closing, id) = (Arc::clone(&waiting), Arc::clone(&waiting), waiting.name_peer());
            let on_message = move |message| {
                hearing.event(Event::PeerMessage(id, message));
                true
            };
            let on_close = move || {
                closing.peer_closed(id);
                drop(closed);
            };
            if let Ok(peer) = attend(stream, "peer", on_message, on_close) {
                waiting.add_peer(id, peer);
                while !waiting.is_started()
                    && gone.recv_timeout(Duration::from_millis(5)).is_err_and(|e| e.is_timeout())
                {
                }
            }
        }
    })
}

/// What a secondary needs for an exit and what is computed up to the next one, about. Time itself would count idle time, too.
const EXIT_TIME: TimeBase = TimeBase { num: 4000, den: 1 };

fn timing(options: &Options, header: &Header) -> Timing {
    let time_base = header.machine.reckoning.time_base().unwrap_or(EXIT_TIME);
    Timing { time_base, ..options.timing }
}

/// Makes the next epoch this side's own: what an earlier pair of this name left behind stays valid for it alone.
fn first_epoch(options: &Options, leader: MemberId) -> Result<u64, PairError> {
    let trouble = |e| PairError::Run(format!("the arbiter does not answer: {e}; all sides must reach it"));
    let held = options.arbiter.read(&options.vm).map_err(trouble)?;
    let mut epoch = held.map_or(0, |held| held.epoch);
    loop {
        epoch += 1;
        let alone = Membership::new(epoch, leader, []);
        match options.arbiter.change(&options.vm, &alone).map_err(trouble)? {
            Changed::Done => return Ok(epoch),
            Changed::Refused(held) => epoch = held.epoch,
        }
    }
}

/// A name that nobody else has.
fn draw_member() -> Result<MemberId, PairError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| PairError::Run(format!("no random numbers: {e}; the host's kernel has to give them")))?;
    Ok(MemberId(u64::from_le_bytes(bytes)))
}

/// The secondary, once it knows what its primary runs.
pub struct Secondary {
    stream: Stream,
    hello: Hello,
    header: Header,
    feed: Arc<Feed>,
}

impl Secondary {
    /// Connects, and hears what the primary runs.
    ///
    /// # Errors
    /// Nobody there, or somebody else.
    pub fn connect(address: &Address, trust: &Trust) -> Result<Self, PairError> {
        trust.check(address)?;
        let refuse = |e: io::Error| match e.kind() {
            io::ErrorKind::InvalidData => PairError::Untrusted(address.clone(), e),
            _ => PairError::Connect(address.clone(), e),
        };
        let stream = address.connect(trust).map_err(refuse)?;
        let first = stream.first_message().map_err(refuse)?;
        let hello = match first {
            Message::Hello(hello) if hello.role == Role::Primary => hello,
            Message::Goodbye(Goodbye::Refused(why)) => return Err(PairError::Refused(why)),
            _ => return Err(PairError::Refused("it is no primary".into())),
        };
        if hello.protocol != PROTOCOL {
            return Err(PairError::Refused(format!(
                "it speaks protocol {}, this is {PROTOCOL}",
                hello.protocol
            )));
        }
        let (feed, header) = Feed::new(&hello.log_header)?;
        Ok(Self { stream, hello, header, feed })
    }

    /// What the primary runs: its machine's RTC and seed are to be taken over.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Follows the primary with `machine`, whose id is `machine_id`, and goes on alone under `live` when the primary
    /// is gone.
    ///
    /// # Errors
    /// The primary refuses, or trouble with the host.
    #[allow(clippy::too_many_arguments)] // two machines' worth of parts, each given once
    pub fn run<L: World>(
        self,
        options: &Options,
        machine: &mut Machine,
        disks: Box<dyn ReplayDisks>,
        live: impl FnOnce(Handover<NoOutput>, At) -> L,
        log: Log,
        surroundings: Box<dyn Surroundings>,
    ) -> Result<Ended, PairError> {
        let Self { stream, hello, header, feed } = self;
        let clients = options.listen_for_clients()?;
        let ours = answer(&hello, options, machine)?;
        let side = start(ours, &header, options, surroundings, clients, None)?;
        side.follow(Arc::clone(&feed));
        let sink = PairSink::new(Arc::clone(&side), &header)?;
        attend_primary(&side, stream, hello)?;
        if !side.wait_started() {
            return match side.wait_stopped() {
                Some(StopReason::Refused(why)) => Err(PairError::Refused(why)),
                Some(StopReason::NeverInSync) => Err(PairError::NeverInSync),
                reason => Ok(ended(&side, reason, None, None)),
            };
        }
        let replay = Replay::new(FeedSource::new(feed), NoOutput, disks);
        follow(&side, machine, Record::new(replay, (log, sink), &header), live, &header)
    }
}

/// Runs a machine that follows, and leads with it when it has come to the end of what there is to follow.
pub(super) fn follow<L: World>(
    side: &Arc<Side>,
    machine: &mut Machine,
    record: Record<Replay<FeedSource, NoOutput>, Sinks>,
    live: impl FnOnce(Handover<NoOutput>, At) -> L,
    header: &Header,
) -> Result<Ended, PairError> {
    let mut world = Paired::following(record, Arc::clone(side), machine.reckoning());
    match machine.run(&mut world) {
        Ok(pause) => follow_to_the_end(side, machine, world.into_world(), pause),
        Err(RunError::World(Stop::EndOfLog)) => {
            let at = machine.at();
            let record = world.into_world().map_world(|replay| live(replay.into_live(), at));
            side.event(Event::EndReached);
            lead(side, machine, record, header)
        }
        Err(error) => give_up(side, world.world(), error),
    }
}

/// Runs a live machine to the end of the guest or of this side. In between, it is copied to standbys.
fn lead<W: World>(
    side: &Arc<Side>,
    machine: &mut Machine,
    record: Record<W, Sinks>,
    header: &Header,
) -> Result<Ended, PairError> {
    let mut world = Paired::leading(record, Arc::clone(side), machine.reckoning());
    let outcome = loop {
        match machine.run(&mut world) {
            Err(RunError::World(Stop::Quit)) if side.desk.is_wanted() && !side.must_stop() => {
                serve_clone(side, machine, world.world(), header);
            }
            outcome => break outcome,
        }
    };
    side.desk.close();
    match outcome {
        Ok(pause) => {
            conclude(machine, world.world(), pause)?;
            side.event(Event::MachineEnded(machine.at()));
            let reason = side.wait_stopped();
            Ok(ended(side, reason, Some(pause), None))
        }
        Err(error) => give_up(side, world.world(), error),
    }
}

/// The guest ended on a machine that follows.
fn follow_to_the_end<S: EntrySource>(
    side: &Arc<Side>,
    machine: &mut Machine,
    mut record: Record<Replay<S, NoOutput>, Sinks>,
    pause: Pause,
) -> Result<Ended, PairError> {
    side.event(Event::MachineEnded(machine.at()));
    match record.world().conclude(machine, Ok(pause)) {
        Ok(Conclusion::Complete { .. } | Conclusion::Ended | Conclusion::Cut { .. }) => {}
        Err(RunError::World(Stop::Quit)) => {}
        Err(error) => return give_up(side, &mut record, error),
    }
    conclude(machine, &mut record, pause)?;
    let reason = side.wait_stopped();
    Ok(ended(side, reason, Some(pause), None))
}

fn conclude<W: World>(
    machine: &mut Machine,
    record: &mut Record<W, Sinks>,
    pause: Pause,
) -> Result<(), PairError> {
    record.conclude(machine, &Ok(pause)).map_err(|e| PairError::Run(describe(&e)))
}

fn give_up<W: World>(
    side: &Arc<Side>,
    record: &mut Record<W, Sinks>,
    error: RunError,
) -> Result<Ended, PairError> {
    // The log ends here without an end entry, which is what happened.
    let flushed = gemel_replay::EntrySink::flush(record.sink());
    match error {
        RunError::World(Stop::Quit) => {
            flushed.map_err(|e| PairError::Run(describe(&RunError::World(e))))?;
            let reason = side.wait_stopped();
            Ok(ended(side, reason, None, None))
        }
        RunError::World(Stop::Diverged(what)) => {
            side.event(Event::Diverged);
            let diverged = what.downcast::<Diverged>().ok();
            let reason = side.wait_stopped();
            Ok(ended(side, reason, None, diverged))
        }
        other => Err(PairError::Run(describe(&other))),
    }
}

fn describe(error: &RunError) -> String {
    match error {
        RunError::World(Stop::Quit) => "ended from outside".into(),
        RunError::World(Stop::EndOfLog) => "the log ended".into(),
        RunError::World(Stop::Diverged(e) | Stop::Host(e)) => e.to_string(),
        RunError::Engine(e) => e.to_string(),
    }
}

pub(super) fn ended(
    side: &Side,
    reason: Option<StopReason>,
    pause: Option<Pause>,
    diverged: Option<Box<Diverged>>,
) -> Ended {
    side.drain(DRAIN);
    side.end_ledger();
    Ended { reason, pause, diverged, report: side.report() }
}
