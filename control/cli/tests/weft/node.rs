//! A dataplane and an agent that answer as told, and the binary that asks them.

use super::*;

/// A run directory with a dataplane, and an agent if it has a status.
pub struct Node {
    pub run_dir: TempDir,
    pub captures: mpsc::Receiver<CaptureSpec>,
}

impl Node {
    pub fn new(status: Status, agent: Option<AgentStatus>) -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(run_dir.path().join("dataplane.sock")).unwrap();
        let (captured, captures) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (status, captured) = (status.clone(), captured.clone());
                thread::spawn(move || dataplane(stream, &status, &captured));
            }
        });
        if let Some(agent) = agent {
            let listener = UnixListener::bind(run_dir.path().join("agent.sock")).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    serve(stream, |_: agent::Op| Ok(json!(agent)));
                }
            });
        }
        Self { run_dir, captures }
    }

    pub fn weft(&self, arguments: &[&str]) -> Output {
        weft(self.run_dir.path()).args(arguments).output().unwrap()
    }

    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.weft(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = weft(self.run_dir.path());
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }
}

pub fn weft(run_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command
        .env_remove("WEFT_RUN_DIR")
        .arg("--run-dir")
        .arg(run_dir);
    command
}

pub fn serve<T: serde::de::DeserializeOwned>(
    stream: UnixStream,
    mut answer: impl FnMut(T) -> Result<Value, ApiError>,
) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Ok(Some(request)) = frame::read_line::<Request<T>>(&mut reader) {
        let response = Response {
            id: request.id,
            outcome: Outcome::from(answer(request.body)),
        };
        let _ = frame::write_line(&mut writer, &response);
    }
}

pub fn dataplane(stream: UnixStream, status: &Status, captured: &mpsc::Sender<CaptureSpec>) {
    let mut raw = stream.try_clone().unwrap();
    serve(stream, |op: Op| match op {
        Op::Status => Ok(json!(status)),
        Op::PortList => Ok(json!(PortList {
            ports: status.ports.clone(),
        })),
        Op::Capture(spec) if spec.snaplen == 77 => Err(ApiError::new(ErrorKind::Failed, "no")),
        Op::Capture(spec) => {
            captured.send(spec.clone()).unwrap();
            let mut raw = raw.try_clone().unwrap();
            // Part of the stream comes together with the answer, part later.
            thread::spawn(move || {
                let bytes = match spec.count {
                    Some(1000) => pcapng(1),
                    Some(count) => pcapng(count as usize),
                    None => {
                        let three = pcapng(3);
                        three[..three.len() - 30].to_vec()
                    }
                };
                for piece in bytes.chunks(50) {
                    thread::sleep(Duration::from_millis(2));
                    if raw.write_all(piece).is_err() {
                        return;
                    }
                }
                if spec.count.is_some() {
                    raw.shutdown(std::net::Shutdown::Both).unwrap();
                }
            });
            Ok(json!({}))
        }
        Op::PolicyLog(spec) => {
            let pod = Some("shop/web".to_owned());
            let verdict = Some(PolicyLogVerdict::Denied);
            assert_eq!(spec, PolicyLogSpec { pod, verdict });
            let mut raw = raw.try_clone().unwrap();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                for event in log_events() {
                    let _ = frame::write_line(&mut raw, &event);
                }
                let _ = raw.shutdown(std::net::Shutdown::Write);
            });
            Ok(json!({}))
        }
        Op::PolicyList => Ok(json!(policies(status.pid == CUT_OFF))),
        Op::PolicyExplain(question) => explain(&question),
        Op::FlowList(query) => flows(&query),
        Op::ServiceList(query) => services(&query),
        Op::Trace(question) => trace(&question),
        other => panic!("{other:?}"),
    });
    let _ = raw.flush();
}
