//! Faults, and connections that break by them.

use crate::host::Connection;
use crate::plan::{CALM, Fault, MS, Point};
use crate::world::{Happening, World};
use gemel_pair::protocol::{Event, Message};

impl World {
    /// A host comes to a point of the protocol; whether it still goes on there.
    pub fn point(&mut self, point: Point, h: usize) -> bool {
        for i in 0..self.plan.strikes.len() {
            let strike = self.plan.strikes[i];
            if strike.point != point || self.now >= CALM {
                continue;
            }
            self.struck[i] += 1;
            if self.struck[i] == strike.after + 1 {
                self.fault(if strike.here { strike.fault.at(h) } else { strike.fault });
            }
        }
        self.hosts[h].alive
    }

    pub fn fault(&mut self, fault: Fault) {
        if self.tells {
            println!("{:>7} {fault:?}", self.now / 1000);
        }
        match fault {
            Fault::Kill(h) => self.die(h, false),
            Fault::PowerCut(h) => self.die(h, true),
            Fault::Pause(h, long) => {
                if self.hosts[h].alive && !std::mem::replace(&mut self.hosts[h].paused, true) {
                    self.at(self.now + long, h, Happening::Resume);
                }
            }
            Fault::Break(h) => {
                let incarnation = self.hosts[h].incarnation;
                for connection in self.connections_of(h, incarnation) {
                    for end in 0..2 {
                        self.close_end(connection, end);
                    }
                    self.connections[connection].silent = true;
                }
            }
            Fault::Partition(h, long) => self.hosts[h].cut_off_until = self.now + long,
            Fault::BreakClient(h) => self.break_client(h),
            Fault::ArbiterAway(long) => self.arbiter_away_until = self.now + long,
            Fault::Repair(h) => {
                if !std::mem::replace(&mut self.hosts[h].alive, true) {
                    self.hosts[h].paused = false;
                    self.hosts[h].backlog.clear();
                    self.at(self.now, h, Happening::Anew);
                    self.at(self.now + MS, h, Happening::ClientConnects);
                }
            }
            Fault::Corrupt(h) => self.hosts[h].side.toy.state ^= 1,
            Fault::FailOver => self.ask_leader(|_| Event::FailOver(None)),
            Fault::Unprotect => self.ask_leader(|world| {
                let held = world.judge.register.last().expect("written at power-on");
                Event::Unprotect(held.followers().next().unwrap_or(held.leader))
            }),
        }
    }

    fn ask_leader(&mut self, event: impl Fn(&Self) -> Event) {
        let leads = |w: &Self, h: usize| w.hosts[h].alive && w.hosts[h].side.member.replication().is_live();
        if let Some(h) = (0..self.hosts.len()).find(|h| leads(self, *h) && !self.hosts[*h].paused) {
            let event = event(self);
            self.handle(h, event);
        }
    }

    /// A process ends, and its connections with it.
    pub fn close_all(&mut self, h: usize) {
        let incarnation = self.hosts[h].incarnation;
        for connection in self.connections_of(h, incarnation) {
            let end = usize::from(self.connections[connection].ends[1] == (h, incarnation));
            self.close_end(connection, 1 - end);
        }
    }

    fn die(&mut self, h: usize, silently: bool) {
        if !std::mem::replace(&mut self.hosts[h].alive, false) {
            return;
        }
        self.gone.push(self.hosts[h].side.id);
        if silently {
            let incarnation = self.hosts[h].incarnation;
            for connection in self.connections_of(h, incarnation) {
                self.connections[connection].silent = true;
            }
        } else {
            self.close_all(h);
        }
        self.break_client(h);
        if let Some(long) = self.plan.repair {
            self.at(self.now + long, h, Happening::Fault(Fault::Repair(h)));
        }
    }

    fn connections_of(&self, h: usize, incarnation: u64) -> Vec<usize> {
        (0..self.connections.len()).filter(|c| self.connections[*c].joins(h, incarnation)).collect()
    }

    /// A leader connects to a host that waits.
    pub fn connect(&mut self, leader: usize, other: usize) {
        let connection = self.connections.len();
        let ends = [leader, other].map(|h| (h, self.hosts[h].incarnation));
        self.connections.push(Connection { ends, silent: false, arrivals: [0, 0], closed: [false, false] });
        for (end, h) in [leader, other].into_iter().enumerate() {
            let when = self.arrival(connection, end);
            self.at(when, h, Happening::Connected(connection, end));
        }
    }

    /// When what is sent now arrives at an end. A host that is cut off hears it later, as TCP sends again what got lost.
    fn arrival(&mut self, connection: usize, end: usize) -> u64 {
        let away = self.connections[connection].ends.map(|(h, _)| self.hosts[h].cut_off_until);
        let when = self.soon().max(away[0]).max(away[1]).max(self.connections[connection].arrivals[end]);
        self.connections[connection].arrivals[end] = when;
        when
    }

    /// An end hears, after what was sent to it before, that the connection is closed.
    pub fn close_end(&mut self, connection: usize, end: usize) {
        let when = self.arrival(connection, end);
        if !self.connections[connection].silent {
            self.happen_at_end(when, connection, end, Happening::Closed(connection, end));
        }
    }

    fn happen_at_end(&mut self, when: u64, connection: usize, end: usize, happening: Happening) {
        let (h, incarnation) = self.connections[connection].ends[end];
        if self.hosts[h].incarnation == incarnation {
            self.at(when, h, happening);
        }
    }

    /// Sends a message to an end.
    pub fn send(&mut self, connection: usize, end: usize, message: Message) {
        if self.connections[connection].silent {
            return;
        }
        let when = self.arrival(connection, end);
        if self.now < CALM && self.plan.garbled > 0 && self.dice.one_in(self.plan.garbled) {
            match self.dice.below(3) {
                0 => return,
                1 => {
                    self.happen_at_end(
                        when,
                        connection,
                        end,
                        Happening::Deliver(connection, end, message.clone()),
                    );
                }
                _ => {
                    let late = self.now + self.dice.below(6 * MS);
                    return self.happen_at_end(
                        late,
                        connection,
                        end,
                        Happening::Deliver(connection, end, message),
                    );
                }
            }
        }
        self.happen_at_end(when, connection, end, Happening::Deliver(connection, end, message));
    }

    pub fn break_client(&mut self, h: usize) {
        if self.links[h].is_open() {
            let generation = self.links[h].generation;
            self.links[h].generation += 1;
            let (heard_there, heard_here) = (self.soon(), self.soon());
            self.at(heard_there, h, Happening::ClientClosed(generation));
            self.at(heard_here, h, Happening::ServerClosed(generation));
        }
    }
}
