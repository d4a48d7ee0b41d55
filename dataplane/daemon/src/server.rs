//! `dataplane.sock`: one thread per connection, requests answered in order.

use std::io::{self, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::Serialize;
use weft_api::dataplane::{CaptureSpec, CaptureStarted, Done, Op, PortList};
use weft_api::envelope::{ApiError, ErrorKind, Outcome, Request, Response};
use weft_api::explain::{PolicyLogSpec, PolicyLogStarted};
use weft_api::frame;
use weft_engine::PortId;

use crate::capture::{Capture, PortLabel};
use crate::control::Control;
use crate::flow_list;
use crate::policy;
use crate::policy_log::PolicyLog;
use crate::service_list;
use crate::status;
use crate::tap::{self, Filter, SNAPLEN_MAX};
use crate::trace;

/// The control side, shared by connections and watchers.
pub type Shared = Arc<Mutex<Control>>;

/// Takes the lock; a connection that panicked under it left it consistent or died before changing it.
pub fn lock(control: &Shared) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens at `path`, readable by root alone; a socket nobody answers at is replaced.
///
/// # Errors
/// AddrInUse when another dataplane answers there; else what the file system says.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        let message = format!("another weft-dataplane answers at {}", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts connections for ever.
pub fn accept(listener: &UnixListener, control: &Shared) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let control = Arc::clone(control);
        let named = std::thread::Builder::new().name("control".to_owned());
        if let Err(error) = named.spawn(move || serve(stream, &control)) {
            tracing::error!(%error, "cannot start a thread for a control connection");
        }
    }
}

fn serve(stream: UnixStream, control: &Shared) {
    let peer = getsockopt(&stream, PeerCredentials);
    if !peer.is_ok_and(|peer| peer.uid() == 0) {
        tracing::warn!("a control connection of a user other than root was refused");
        return;
    }
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    loop {
        match frame::read_line::<Request<Op>>(&mut reader) {
            Ok(Some(Request {
                id,
                body: Op::Capture(spec),
            })) => {
                lock(control).capture_begins();
                if let Err(error) = capture(id, &spec, writer, control) {
                    tracing::debug!(%error, "a capture ended");
                }
                let mut control = lock(control);
                control.workers.forget_readers();
                control.capture_ends();
                return;
            }
            Ok(Some(Request {
                id,
                body: Op::PolicyLog(spec),
            })) => {
                if let Err(error) = policy_log(id, &spec, writer, control) {
                    tracing::debug!(%error, "a policy log ended");
                }
                lock(control).workers.forget_readers();
                return;
            }
            Ok(Some(Request { id, body })) => {
                let mut line = Vec::new();
                // The lock is free again before a client that does not read can hold us up.
                let answered = answer(&mut line, id, body, &mut lock(control));
                if answered.and_then(|()| writer.write_all(&line)).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                let refused = ApiError::new(
                    ErrorKind::BadRequest,
                    format!("unreadable request: {error}"),
                );
                let _ = respond::<Done>(&mut writer, 0, Err(refused));
                if error.kind() != io::ErrorKind::InvalidData {
                    return;
                }
            }
        }
    }
}

fn respond<T: Serialize>(
    writer: &mut impl Write,
    id: u64,
    result: Result<T, ApiError>,
) -> io::Result<()> {
    frame::write_line(
        writer,
        &Response {
            id,
            outcome: Outcome::from(result),
        },
    )
}

fn answer(writer: &mut Vec<u8>, id: u64, op: Op, control: &mut Control) -> io::Result<()> {
    let done = |result: Result<(), ApiError>| result.map(|()| Done {});
    match op {
        Op::Hello { version } if version != weft_api::PROTOCOL_VERSION => {
            let ours = weft_api::PROTOCOL_VERSION;
            let message = format!(
                "control protocol {version} where this dataplane speaks {ours}; install matching versions"
            );
            respond::<Done>(
                writer,
                id,
                Err(ApiError::new(ErrorKind::BadRequest, message)),
            )
        }
        Op::Hello { .. } => respond(writer, id, Ok(control.hello())),
        Op::SyncBegin { generation } => {
            respond(writer, id, done(control.objects.begin(generation)))
        }
        Op::Upsert {
            generation,
            objects,
        } => respond(writer, id, done(control.upsert(generation, objects))),
        Op::Delete { generation, keys } => {
            respond(writer, id, done(control.delete(generation, &keys)))
        }
        Op::Commit { generation } => respond(writer, id, done(control.commit(generation))),
        Op::PortAttach(spec) => respond(writer, id, control.attach(spec)),
        Op::PortDetach { name } => respond(writer, id, done(control.detach(&name))),
        Op::PortList => {
            control.workers.absorb_shortcuts();
            let ports = control.port_statuses();
            respond(writer, id, Ok(PortList { ports }))
        }
        Op::PolicyList => respond(writer, id, policy::list(control)),
        Op::PolicyExplain(question) => respond(writer, id, policy::explain(control, &question)),
        Op::FlowList(query) => respond(writer, id, flow_list::list(control, &query)),
        Op::ServiceList(query) => respond(writer, id, service_list::list(control, &query)),
        Op::Trace(question) => respond(writer, id, trace::answer(control, &question)),
        Op::Status => respond(writer, id, Ok(status::status(control))),
        Op::Capture(_) | Op::PolicyLog(_) => Ok(()),
    }
}

/// Answers, then turns the connection into a pcapng stream.
fn capture(
    id: u64,
    spec: &CaptureSpec,
    mut stream: UnixStream,
    control: &Shared,
) -> io::Result<()> {
    let (readers, snaplen, clock) = {
        let control = lock(control);
        let port = match &spec.port {
            None => None,
            Some(name) => match control.ports.named(name) {
                Some(port) => Some(PortId(port.record.id)),
                None => {
                    let message = format!("no port {name}; `weft port` lists them");
                    return respond::<Done>(
                        &mut stream,
                        id,
                        Err(ApiError::new(ErrorKind::NotFound, message)),
                    );
                }
            },
        };
        let snaplen = spec.snaplen.clamp(64, SNAPLEN_MAX);
        let mut readers = Vec::new();
        for worker in 0..control.workers.len() {
            let (tap, reader) = tap::tap(Filter {
                port,
                snaplen,
                drops_only: spec.drops_only,
            });
            if let Err(error) = control.workers.tap(worker, tap) {
                return respond::<Done>(&mut stream, id, Err(error.into()));
            }
            readers.push(reader);
        }
        (readers, snaplen, control.clock)
    };
    respond(&mut stream, id, Ok(CaptureStarted {}))?;
    let label = |port: PortId| {
        let mut control = lock(control);
        control.ports.get_mut(port.0).map_or_else(
            || PortLabel {
                name: format!("port{}", port.0),
                description: "detached".to_owned(),
            },
            |p| {
                PortLabel::new(
                    &p.spec.name.0,
                    p.spec.kind,
                    p.spec.pod.as_ref().map(ToString::to_string),
                )
            },
        )
    };
    let watch = stream.try_clone()?;
    let out = io::BufWriter::new(stream);
    Capture::start(out, readers, label, snaplen, spec.count, clock)?.run(|| hung_up(&watch))
}

/// Answers, then turns the connection into a stream of verdicts.
fn policy_log(
    id: u64,
    spec: &PolicyLogSpec,
    mut stream: UnixStream,
    control: &Shared,
) -> io::Result<()> {
    let started = PolicyLog::start(&lock(control), spec);
    let log = match started {
        Ok(log) => log,
        Err(error) => return respond::<Done>(&mut stream, id, Err(error)),
    };
    respond(&mut stream, id, Ok(PolicyLogStarted {}))?;
    let watch = stream.try_clone()?;
    log.run(&mut stream, control, || hung_up(&watch))
}

/// True when the client closed the connection.
fn hung_up(stream: &UnixStream) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsRawFd;
    let mut byte = [0];
    let seen = recv(
        stream.as_raw_fd(),
        &mut byte,
        MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
    );
    seen == Ok(0)
}
