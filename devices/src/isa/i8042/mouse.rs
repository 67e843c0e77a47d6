//! The PS/2 mouse, with the wheel protocol of the IntelliMouse.
//!
//! Not responsible for: where the pointer is; a wheel (the id is answered, the wheel never turns).
//!
//! Commands as in the IBM PS/2 Hardware Interface Technical Reference (1988), "Auxiliary device"; the knock of the
//! IntelliMouse (rates 200, 100, 80, then id 3) as in Microsoft's "PS/2 mouse driver" notes.

use super::keyboard::{ACK, RESEND, SELF_TEST_PASSED};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes that wait at most; movement beyond is summed up and sent later.
const QUEUE: usize = 64;
/// Counts that one packet carries in a direction.
const LARGEST: i32 = 255;
const KNOCK: [u8; 3] = [200, 100, 80];

/// The mouse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Mouse {
    queue: VecDeque<u8>,
    /// The command that waits for its argument.
    command: Option<u8>,
    mode: Mode,
    /// Mode before wrap mode.
    mode_before: Mode,
    reporting: bool,
    scaled: bool,
    resolution: u8,
    rate: u8,
    /// The last three rates set: the knock.
    rates: [u8; 3],
    wheel: bool,
    /// Movement and buttons that no packet has carried yet.
    moved: (i32, i32),
    buttons: u8,
    buttons_sent: u8,
    last_sent: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Mode {
    Stream,
    Remote,
    Wrap,
}

impl Mouse {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            command: None,
            mode: Mode::Stream,
            mode_before: Mode::Stream,
            reporting: false,
            scaled: false,
            resolution: 2, // 4 counts a millimetre
            rate: 100,
            rates: [0; 3],
            wheel: false,
            moved: (0, 0),
            buttons: 0,
            buttons_sent: 0,
            last_sent: 0,
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        let small = |n: i32| (-1 << 20..=1 << 20).contains(&n);
        self.queue.len() <= QUEUE && small(self.moved.0) && small(self.moved.1)
    }

    /// The next byte for the controller.
    pub(super) fn take(&mut self) -> Option<u8> {
        let byte = self.queue.pop_front()?;
        if byte != RESEND {
            self.last_sent = byte;
        }
        self.stream();
        Some(byte)
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.queue.is_empty()
    }

    fn say(&mut self, bytes: &[u8]) {
        if self.queue.len() + bytes.len() <= QUEUE {
            self.queue.extend(bytes);
        }
    }

    /// The mouse moves (right and up are positive) or a button changes.
    pub(super) fn moves(&mut self, dx: i16, dy: i16, buttons: u8) {
        let far = 1 << 20;
        self.moved.0 = (self.moved.0 + i32::from(dx)).clamp(-far, far);
        self.moved.1 = (self.moved.1 + i32::from(dy)).clamp(-far, far);
        self.buttons = buttons & 7;
        self.stream();
    }

    /// Makes packets of what has happened, in stream mode and while there is room for them.
    fn stream(&mut self) {
        let news = |m: &Self| m.moved != (0, 0) || m.buttons != m.buttons_sent;
        while self.reporting && self.mode == Mode::Stream && news(self) && self.queue.len() + 4 <= QUEUE {
            self.packet(self.scaled);
        }
    }

    /// Scaling 2:1 of the stream's reports.
    const fn scale(count: i32) -> i32 {
        match count.abs() {
            0 | 1 => count,
            2 => count.signum(),
            3 => count.signum() * 3,
            4 => count.signum() * 6,
            5 => count.signum() * 9,
            _ => count * 2,
        }
    }

    fn packet(&mut self, scaled: bool) {
        let largest = if scaled { LARGEST / 2 } else { LARGEST };
        let dx = self.moved.0.clamp(-largest, largest);
        let dy = self.moved.1.clamp(-largest, largest);
        self.moved = (self.moved.0 - dx, self.moved.1 - dy);
        self.buttons_sent = self.buttons;
        let (dx, dy) = if scaled { (Self::scale(dx), Self::scale(dy)) } else { (dx, dy) };
        let head = 0x08 | self.buttons | u8::from(dx < 0) << 4 | u8::from(dy < 0) << 5;
        self.say(&[head, dx as u8, dy as u8]);
        if self.wheel {
            self.say(&[0]);
        }
    }

    fn set_defaults(&mut self) {
        let Self { wheel, last_sent, .. } = *self;
        *self = Self { wheel, last_sent, ..Self::new() };
    }

    /// A byte from the controller.
    pub(super) fn write(&mut self, byte: u8) {
        if self.mode == Mode::Wrap && byte != 0xec && byte != 0xff {
            self.say(&[byte]);
            return;
        }
        // A command breaks off the packet that is under way.
        self.queue.clear();
        match self.command.take() {
            Some(0xf3) => self.set_rate(byte),
            Some(_) => {
                let known = byte <= 3;
                if known {
                    self.resolution = byte;
                }
                self.say(&[if known { ACK } else { RESEND }]);
            }
            None => self.obey(byte),
        }
    }

    fn set_rate(&mut self, rate: u8) {
        if !matches!(rate, 10 | 20 | 40 | 60 | 80 | 100 | 200) {
            self.say(&[RESEND]);
            return;
        }
        self.rate = rate;
        self.rates = [self.rates[1], self.rates[2], rate];
        self.wheel |= self.rates == KNOCK;
        self.say(&[ACK]);
    }

    fn obey(&mut self, command: u8) {
        match command {
            0xe6 | 0xe7 => {
                self.scaled = command == 0xe7;
                self.say(&[ACK]);
            }
            0xe8 | 0xf3 => {
                self.command = Some(command);
                self.say(&[ACK]);
            }
            0xe9 => {
                // Left, middle, right from bit 2 down, unlike a packet.
                let buttons = (self.buttons & 1) << 2 | (self.buttons & 6) >> 1;
                let status = u8::from(self.mode == Mode::Remote) << 6
                    | u8::from(self.reporting) << 5
                    | u8::from(self.scaled) << 4
                    | buttons;
                self.say(&[ACK, status, self.resolution, self.rate]);
            }
            0xea | 0xf0 => {
                self.mode = if command == 0xea { Mode::Stream } else { Mode::Remote };
                self.moved = (0, 0);
                self.say(&[ACK]);
            }
            0xeb => {
                self.say(&[ACK]);
                self.packet(false);
            }
            0xec => {
                if self.mode == Mode::Wrap {
                    self.mode = self.mode_before;
                }
                self.say(&[ACK]);
            }
            0xee => {
                (self.mode_before, self.mode) = (self.mode, Mode::Wrap);
                self.say(&[ACK]);
            }
            0xf2 => self.say(&[ACK, if self.wheel { 3 } else { 0 }]),
            0xf4 | 0xf5 => {
                self.reporting = command == 0xf4;
                self.moved = (0, 0);
                self.say(&[ACK]);
            }
            0xf6 => {
                self.set_defaults();
                self.say(&[ACK]);
            }
            0xfe => self.say(&[self.last_sent]),
            0xff => {
                *self = Self::new();
                self.say(&[ACK, SELF_TEST_PASSED, 0x00]);
            }
            _ => self.say(&[RESEND]),
        }
    }
}
