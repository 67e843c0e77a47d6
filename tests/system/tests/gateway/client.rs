//! A client outside: numbered lines on one TCP connection, each compared when it comes back.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// An answer that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Client {
    stream: BufReader<TcpStream>,
    sent: u32,
    received: u32,
    asked: Instant,
    took: Vec<Duration>,
}

fn line(number: u32) -> String {
    // Of different lengths, and none like another.
    format!("line {number} {}\n", "x".repeat(number as usize * 7 % 300))
}

impl Client {
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let stream = BufReader::new(stream);
        Ok(Self { stream, sent: 0, received: 0, asked: Instant::now(), took: Vec::new() })
    }

    /// Connects anew until a guest or gateway that comes up answers.
    pub fn connect_until_echoed(port: u16) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::connect(port).and_then(|mut client| client.echo(1).map(|()| client)) {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(100)),
            }
        }
    }

    pub fn send_line(&mut self) -> Result<()> {
        self.asked = Instant::now();
        self.stream.get_mut().write_all(line(self.sent).as_bytes())?;
        self.sent += 1;
        Ok(())
    }

    pub fn receive_line(&mut self) -> Result<()> {
        let mut answer = String::new();
        self.stream.read_line(&mut answer).context("the connection broke")?;
        if answer.is_empty() {
            bail!("the connection ended");
        }
        ensure!(answer == line(self.received), "line {}: {answer:?}", self.received);
        self.received += 1;
        self.took.push(self.asked.elapsed());
        Ok(())
    }

    pub fn echo(&mut self, lines: u32) -> Result<()> {
        for _ in 0..lines {
            self.send_line()?;
            self.receive_line()?;
        }
        Ok(())
    }

    pub fn median(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort();
        took[took.len() / 2]
    }

    pub fn longest(&self) -> Duration {
        self.took.iter().max().copied().unwrap_or_default()
    }
}
