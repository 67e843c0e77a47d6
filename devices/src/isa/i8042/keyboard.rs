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

/// Bytes of keys that wait at most. A real keyboard has room for 16; inputs here come without flow control and may come in
/// one piece, so there is room for a few hundred keys.
const KEYS: usize = 1024;
/// Answers that wait at most: of a few commands.
const ANSWERS: usize = 16;

/// The keyboard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Keyboard {
    /// Answers to commands: they go before keys that wait, but not into the middle of a key's sequence.
    answers: VecDeque<u8>,
    keys: VecDeque<u8>,
    /// The last byte sent was a prefix: the next belongs to it.
    in_sequence: bool,
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
            answers: VecDeque::new(),
            keys: VecDeque::new(),
            in_sequence: false,
            command: None,
            scanning: true,
            set: 2,
            leds: 0,
            typematic: 0x2b, // 10.9 characters a second after 500 ms
            last_sent: 0,
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.keys.len() <= KEYS && self.answers.len() <= ANSWERS
    }

    /// The next byte for the controller.
    pub(super) fn take(&mut self) -> Option<u8> {
        let next = if self.in_sequence && !self.keys.is_empty() { None } else { self.answers.pop_front() };
        let byte = match next {
            Some(answer) => answer,
            None => {
                let code = self.keys.pop_front()?;
                self.in_sequence = matches!(code, 0xe0 | 0xe1 | 0xf0);
                code
            }
        };
        if byte != RESEND {
            self.last_sent = byte;
        }
        Some(byte)
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.answers.is_empty() || !self.keys.is_empty()
    }

    fn say(&mut self, bytes: &[u8]) {
        if self.answers.len() + bytes.len() <= ANSWERS {
            self.answers.extend(bytes);
        }
    }

    /// Scan codes of set 2. Whole keys are dropped when there is no room.
    pub(super) fn type_codes(&mut self, codes: &[u8]) {
        if !self.scanning {
            return;
        }
        if self.keys.len() + codes.len() > KEYS {
            return;
        }
        if self.set == 2 {
            self.keys.extend(codes);
        } else {
            let mut releasing = false;
            self.keys.extend(codes.iter().filter_map(|code| translate(*code, &mut releasing)));
        }
    }

    fn clear_keys(&mut self) {
        self.keys.clear();
        self.in_sequence = false;
    }

    fn set_defaults(&mut self) {
        self.clear_keys();
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
                self.clear_keys();
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
