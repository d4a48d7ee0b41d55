//! Seeded bytes over one TCP connection; both ends print what they hashed.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::pattern::{Hash, Random};
use crate::report;

/// Bytes given to each write and read; a multiple of the pattern's word.
const CHUNK: usize = 128 << 10;

/// Which end.
#[derive(Subcommand)]
pub enum Side {
    /// Takes one connection, hashes what arrives until it ends
    Server(ServerArgs),
    /// Sends seeded bytes
    Client(ClientArgs),
}

/// Options of the receiver.
#[derive(Args)]
pub struct ServerArgs {
    /// Address and port to listen on
    #[arg(long)]
    listen: SocketAddr,
}

/// Options of the sender.
#[derive(Args)]
pub struct ClientArgs {
    /// Address and port of the server
    #[arg(long)]
    to: SocketAddr,
    /// How many bytes
    #[arg(long, default_value_t = 64 << 20)]
    bytes: u64,
    /// Same seed, same bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What either end saw.
#[derive(Debug, PartialEq, Serialize)]
struct Transfer {
    bytes: u64,
    hash: String,
}

/// Runs one end.
pub fn run(side: &Side) -> anyhow::Result<()> {
    let transfer = match side {
        Side::Server(args) => {
            let listener = TcpListener::bind(args.listen)
                .with_context(|| format!("cannot listen on {}", args.listen))?;
            let (stream, _) = listener.accept().context("cannot accept")?;
            receive(stream)?
        }
        Side::Client(args) => {
            let stream = TcpStream::connect(args.to)
                .with_context(|| format!("cannot connect to {}", args.to))?;
            send(stream, args.bytes, args.seed)?
        }
    };
    report::print(&transfer)
}

fn receive(mut stream: impl Read) -> anyhow::Result<Transfer> {
    let mut chunk = vec![0; CHUNK];
    let (mut bytes, mut hash) = (0, Hash::new());
    loop {
        let len = stream.read(&mut chunk).context("cannot receive")?;
        if len == 0 {
            break;
        }
        bytes += len as u64;
        hash.add(&chunk[..len]);
    }
    Ok(Transfer {
        bytes,
        hash: hash.hex(),
    })
}

fn send(mut stream: TcpStream, bytes: u64, seed: u64) -> anyhow::Result<Transfer> {
    let mut chunk = vec![0; CHUNK];
    let (mut left, mut hash, mut random) = (bytes, Hash::new(), Random::new(seed));
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        random.fill(&mut chunk);
        hash.add(&chunk[..len]);
        stream.write_all(&chunk[..len]).context("cannot send")?;
        left -= len as u64;
    }
    stream.shutdown(Shutdown::Write).context("cannot finish")?;
    // The connection ends cleanly only once the server took everything.
    stream
        .read_to_end(&mut Vec::new())
        .context("the server did not finish")?;
    Ok(Transfer {
        bytes,
        hash: hash.hex(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_agree() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || receive(listener.accept().unwrap().0).unwrap());
        let sent = send(TcpStream::connect(to).unwrap(), 1_000_003, 9).unwrap();
        assert_eq!(sent.bytes, 1_000_003);
        assert_eq!(server.join().unwrap(), sent);
    }
}
