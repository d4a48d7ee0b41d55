//! Latency: one byte there, one byte back, by blocking sockets and one thread at each end.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};

use super::lane::Lane;
use super::machine::Meter;
use super::netns;
use super::stats::quantile;

/// A peer silent for this long is gone.
const SILENT: Duration = Duration::from_secs(2);
/// Exchanges before the clock starts: caches, the neighbour entry, conntrack.
const WARM_UP: usize = 200;
/// An ephemeral port is kept for a minute after its connection; there are 28,000 of them.
const CONNECTIONS_MAX: usize = 20_000;
/// No connection for this long: the client is done.
const NO_MORE: Duration = Duration::from_millis(300);

/// Round-trip times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the exchanges took no longer.
    pub p50: f64,
    /// 99 % of them.
    pub p99: f64,
    /// 99.9 % of them.
    pub p999: f64,
}

impl Latency {
    /// Of at least one time.
    fn of(took_ns: &mut [u32]) -> Self {
        took_ns.sort_unstable();
        let us = |share| f64::from(quantile(took_ns, share)) / 1e3;
        Self {
            p50: us(0.5),
            p99: us(0.99),
            p999: us(0.999),
        }
    }
}

/// What a run measured.
#[derive(Clone, Copy, Debug)]
pub struct Exchanges {
    /// Exchanges per second.
    pub rate: f64,
    /// How long each took.
    pub latency: Latency,
    /// How long it took to connect, where each exchange did: two packets, the first of a connection.
    pub connect: Option<Latency>,
    /// Cores the whole machine used.
    pub cpu_cores: f64,
}

/// Exchanges over one connection, both ends on `core` if one is given.
pub fn over_one_connection(
    lane: &Lane,
    length: Duration,
    core: Option<usize>,
) -> anyhow::Result<Exchanges> {
    let listener = netns::listener(&lane.server, lane.port)?;
    let to = SocketAddr::new(lane.address, listener.local_addr()?.port());
    accepts_within(&listener, SILENT)?;
    let server = netns::start(&lane.server, core, move || {
        answer(listener.accept().context("nobody connected")?.0)
    })?;
    let client = netns::start(&lane.client, core, move || {
        let mut stream = connect(to)?;
        for _ in 0..WARM_UP {
            exchange(&mut stream)?;
        }
        timed(length, usize::MAX, || exchange(&mut stream))
    })?;
    let found = netns::finish(client)?;
    netns::finish(server)?;
    Ok(found)
}

/// A new connection for each exchange.
pub fn over_new_connections(lane: &Lane, length: Duration) -> anyhow::Result<Exchanges> {
    let listener = netns::listener(&lane.server, lane.port)?;
    let to = SocketAddr::new(lane.address, listener.local_addr()?.port());
    accepts_within(&listener, NO_MORE)?;
    let server = netns::start(&lane.server, None, move || serve(&listener))?;
    let client = netns::start(&lane.client, None, move || {
        let mut connect_ns = Vec::with_capacity(CONNECTIONS_MAX);
        let found = timed(length, CONNECTIONS_MAX, || {
            let began = Instant::now();
            let mut stream = connect(to)?;
            connect_ns.push(nanoseconds(began.elapsed()));
            exchange(&mut stream)
        })?;
        Ok(Exchanges {
            connect: Some(Latency::of(&mut connect_ns)),
            ..found
        })
    })?;
    let found = netns::finish(client)?;
    netns::finish(server)?;
    Ok(found)
}

/// Makes `accept` give up: the kernel applies SO_RCVTIMEO to it (socket(7)).
fn accepts_within(listener: &TcpListener, limit: Duration) -> anyhow::Result<()> {
    let limit = TimeVal::milliseconds(limit.as_millis() as i64);
    setsockopt(listener, sockopt::ReceiveTimeout, &limit)
        .context("cannot limit how long accept waits")
}

fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, SILENT)
        .with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENT))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(b"?").context("cannot send a request")?;
    stream
        .read_exact(&mut [0])
        .context("no answer to a request")?;
    Ok(())
}

/// Answers until the client closes.
fn answer(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENT))?;
    let mut byte = [0];
    while stream.read(&mut byte).context("no request came")? > 0 {
        stream.write_all(&byte).context("cannot answer")?;
    }
    Ok(())
}

/// Answers connection after connection until none comes.
fn serve(listener: &TcpListener) -> anyhow::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => answer(stream)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("cannot accept"),
        }
    }
}

/// Repeats `once` and times each.
fn timed(
    length: Duration,
    count_max: usize,
    mut once: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Exchanges> {
    let (started, meter) = (Instant::now(), Meter::start()?);
    let (mut took_ns, mut begin) = (Vec::with_capacity(1 << 16), started);
    while begin - started < length && took_ns.len() < count_max {
        once()?;
        let end = Instant::now();
        took_ns.push(nanoseconds(end - begin));
        begin = end;
    }
    let (seconds, used) = (started.elapsed().as_secs_f64(), meter.used()?);
    if took_ns.is_empty() {
        bail!("not one exchange");
    }
    Ok(Exchanges {
        rate: took_ns.len() as f64 / seconds,
        latency: Latency::of(&mut took_ns),
        connect: None,
        cpu_cores: used.cores,
    })
}

fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_every_exchange() {
        let found = timed(Duration::from_millis(60), usize::MAX, || {
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        })
        .unwrap();
        assert!(found.latency.p50 >= 1_000.0 && found.latency.p50 <= found.latency.p999);
        assert!(found.rate <= 1_000.0);
    }

    #[test]
    fn an_exchange_that_fails_fails_the_run() {
        let failing = timed(Duration::from_millis(1), usize::MAX, || bail!("no answer"));
        assert!(failing.is_err());
    }

    #[test]
    fn stops_before_ports_run_out() {
        let found = timed(Duration::from_secs(60), 10, || Ok(()));
        assert!(found.is_ok());
    }

    #[test]
    fn answers_until_the_client_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        accepts_within(&listener, NO_MORE).unwrap();
        let server = std::thread::spawn(move || serve(&listener));
        for _ in 0..2 {
            let mut stream = connect(to).unwrap();
            exchange(&mut stream).unwrap();
            exchange(&mut stream).unwrap();
        }
        server.join().unwrap().unwrap();
    }
}
