//! Clients of the guest `services`, each of which checks every answer.
//!
//! Not responsible for how the guest is reached.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// For one answer of a guest on a loaded host.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ports at which the guest serves.
pub const WEB: u16 = 80;
/// Redis.
pub const REDIS: u16 = 6379;
/// SQL in, rows out.
pub const SQL: u16 = 5432;

fn connect(address: SocketAddr) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| address.to_string())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// What the guest's files begin with: MINSTD from 7 in hexadecimal, as `services.sh` makes it.
pub fn content(bytes: usize) -> Vec<u8> {
    let mut number = 7u64;
    let mut text = String::with_capacity(bytes + 8);
    while text.len() < bytes {
        number = number * 16807 % 2_147_483_647;
        text.push_str(&format!("{number:08x}"));
    }
    text.truncate(bytes);
    text.into_bytes()
}

/// A connection to nginx that is kept.
pub struct Web(BufReader<TcpStream>);

impl Web {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        connect(address).map(Self)
    }

    /// Fetches a file (`1k`, `64k`, `1m`, `4m`) and compares it. Returns its size.
    pub fn fetch(&mut self, file: &str) -> Result<usize> {
        let wanted = match file {
            "1k" => 1 << 10,
            "64k" => 64 << 10,
            "1m" => 1 << 20,
            "4m" => 4 << 20,
            _ => bail!("the guest has no file {file}"),
        };
        write!(self.0.get_mut(), "GET /{file} HTTP/1.1\r\nHost: guest\r\n\r\n")?;
        let mut length = None;
        for number in 0.. {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "the web server closed the connection");
            ensure!(number > 0 || line.starts_with("HTTP/1.1 200 "), "{line}");
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = Some(value.parse()?)
                }
                None if number > 0 => break,
                _ => {}
            }
        }
        ensure!(length == Some(wanted), "{file} has a length of {length:?}");
        let mut body = vec![0; wanted];
        self.0.read_exact(&mut body)?;
        let wrong = body.iter().zip(content(wanted)).position(|(got, wanted)| *got != wanted);
        ensure!(wrong.is_none(), "{file} differs at byte {wrong:?}");
        Ok(wanted)
    }
}

/// A connection to redis that is kept.
pub struct Redis(BufReader<TcpStream>);

impl Redis {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        connect(address).map(Self)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line)? > 0, "redis closed the connection");
        Ok(line)
    }

    /// Sets a key, and returns once that is acknowledged.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        write!(self.0.get_mut(), "SET {key} {value}\r\n")?;
        let answer = self.line()?;
        ensure!(answer == "+OK\r\n", "SET {key}: {answer:?}");
        Ok(())
    }

    /// The value of a key; `None` where there is none.
    pub fn get(&mut self, key: &str) -> Result<Option<String>> {
        write!(self.0.get_mut(), "GET {key}\r\n")?;
        let length = self.line()?;
        if length == "$-1\r\n" {
            return Ok(None);
        }
        ensure!(length.starts_with('$'), "GET {key}: {length:?}");
        Ok(Some(self.line()?.trim_end().to_owned()))
    }
}

/// A connection to sqlite.
pub struct Rows(BufReader<TcpStream>);

impl Rows {
    /// Connects; the guest starts a process for it.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        connect(address).map(Self)
    }

    /// Commits a row, and returns its number once it is on the disk.
    pub fn commit(&mut self, value: &str) -> Result<u64> {
        self.ask(&format!("INSERT INTO rows(v) VALUES('{value}'); SELECT last_insert_rowid();"))?
            .parse()
            .context("no row number")
    }

    /// The answer of one line to a statement.
    pub fn ask(&mut self, sql: &str) -> Result<String> {
        writeln!(self.0.get_mut(), "{sql}")?;
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line)? > 0, "sqlite closed the connection");
        Ok(line.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_files_are_minstd() {
        // Park and Miller, CACM 31:10: 7 * 16807, then that * 16807 modulo 2^31 - 1.
        assert_eq!(super::content(16), format!("{:08x}{:08x}", 117_649, 1_977_326_743).into_bytes());
        assert_eq!(super::content(13).len(), 13);
    }
}
