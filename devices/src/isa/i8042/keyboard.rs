//! The PS/2 keyboard: commands, answers, and the queue of what it has to say.
//!
//! Not responsible for: which key was pressed (inputs are scan codes of set 2), repeating a held key: who sends the
//! keys sends the repetitions.
//!
//! Commands as in the IBM PS/2 Hardware Interface Technical Reference (1988), "Keyboards".

use super::scancodes::translate;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

pub(super) const ACK: u8 = 0xfa;
pub(super) const RESEND: u8 = 0xfe;
pub(super) const SELF_TEST_PASSED: u8 = 0xaa;

/// Bytes that wait at most. A real keyboard has room for 16; inputs here come without flow control and may come in
/// one piece, so there is room for a few hundred keys.
const QUEUE: usize = 1024;

/// The keyboard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Keyboard {
    queue: VecDeque<u8>,
    /// The command that waits for its argument.
    command: Option<u8>,
    scanning: bool,
    /// Scan code set, 1 or 2.
    set: u8,
    leds: u8,
    /// Rate and delay of a held key: kept, not used.
    typematic: u8,
    last_sent: u8,
}

impl Keyboard {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            command: None,
            scanning: true,
            set: 2,
            leds: 0,
            typematic: 0x2b, // 10.9 characters a second after 500 ms
            last_sent: 0,
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.queue.len() <= QUEUE
    }

    /// The next byte for the controller.
    pub(super) fn take(&mut self) -> Option<u8> {
        let byte = self.queue.pop_front()?;
        if byte != RESEND {
            self.last_sent = byte;
        }
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

    /// Scan codes of set 2. Whole keys are dropped when there is no room.
    pub(super) fn type_codes(&mut self, codes: &[u8]) {
        if !self.scanning {
            return;
        }
        if self.set == 2 {
            self.say(codes);
        } else {
            let mut releasing = false;
            let codes: Vec<u8> = codes.iter().filter_map(|code| translate(*code, &mut releasing)).collect();
            self.say(&codes);
        }
    }

    fn set_defaults(&mut self) {
        self.queue.clear();
        (self.set, self.typematic) = (2, Self::new().typematic);
    }

    /// A byte from the controller.
    pub(super) fn write(&mut self, byte: u8) {
        if let Some(command) = self.command.take() {
            // A command in place of an argument is a new command.
            if byte < 0x80 || command == 0xf3 {
                self.argument(command, byte);
                return;
            }
        }
        match byte {
            0xed | 0xf0 | 0xf3 => {
                self.command = Some(byte);
                self.say(&[ACK]);
            }
            0xee => self.say(&[0xee]),
            0xf2 => self.say(&[ACK, 0xab, 0x83]),
            0xf4 => {
                self.queue.clear();
                self.scanning = true;
                self.say(&[ACK]);
            }
            0xf5 => {
                self.set_defaults();
                self.scanning = false;
                self.say(&[ACK]);
            }
            0xf6 => {
                self.set_defaults();
                self.scanning = true;
                self.say(&[ACK]);
            }
            0xfe => self.say(&[self.last_sent]),
            0xff => {
                *self = Self::new();
                self.say(&[ACK, SELF_TEST_PASSED]);
            }
            _ => self.say(&[RESEND]),
        }
    }

    fn argument(&mut self, command: u8, value: u8) {
        match (command, value) {
            (0xed, _) => self.leds = value & 7,
            (0xf3, _) => self.typematic = value & 0x7f,
            (0xf0, 0) => {
                self.say(&[ACK, self.set]);
                return;
            }
            (0xf0, 1 | 2) => self.set = value,
            _ => {
                self.say(&[RESEND]);
                return;
            }
        }
        self.say(&[ACK]);
    }
}
