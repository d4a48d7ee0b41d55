//! The network configuration of standard input.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;
use weft_api::agent::{Attachment, HostPort};
use weft_api::paths::DEFAULT_RUN_DIR;

use crate::env::check_identifier;
use crate::error::Error;
use crate::json::Object;
use crate::result::{AddResult, Dns};

/// Smallest `mtu`: IPv6's minimum (RFC 8200, section 5).
const MTU_MIN: u32 = 1280;
/// Largest `mtu`: an IP packet's own limit.
const MTU_MAX: u32 = 65_535;

/// A version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK, prevResult in DEL.
    V0_4_0,
    /// 1.0.0: addresses without their family.
    V1_0_0,
    /// 1.1.0: STATUS, GC, more fields in results.
    V1_1_0,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest.
    pub const LATEST: Self = Self::V1_1_0;

    /// As `cniVersion` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }
}

/// The configuration of one network, as far as every command needs it.
#[derive(Clone, Debug)]
pub struct NetConf {
    /// Version the caller speaks.
    pub version: Version,
    /// Network name.
    pub name: String,
    /// `runDir`: the node's run directory.
    pub run_dir: Option<PathBuf>,
    /// `ipam.type`: the plugin that gives addresses; none: the agent does.
    pub ipam: Option<String>,
    /// The document as it came, for delegated plugins.
    pub raw: Vec<u8>,
    document: Value,
}

/// What only ADD and CHECK look at; DEL must not fail for the sake of any of it.
#[derive(Clone, Debug)]
pub struct PodConf {
    /// `mtu`: the pods' path MTU in bytes; none when absent or 0.
    pub mtu: Option<u32>,
    /// `dns`: passed on in the result.
    pub dns: Dns,
    /// `runtimeConfig.portMappings`: ports of the node that lead to the pod.
    pub host_ports: Vec<HostPort>,
    /// Result of the plugin before (ADD) or of the ADD (CHECK).
    pub prev_result: Option<AddResult>,
}

/// `cniVersion` of a document, as far as it can be read: for error documents.
pub fn version_of(stdin: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(stdin).ok()?;
    let object = Object::root(&value, "standard input").ok()?;
    object.string("cniVersion").ok().flatten()
}

impl NetConf {
    /// Decodes and checks standard input.
    ///
    /// # Errors
    /// [`Error::Decode`], [`Error::IncompatibleVersion`], [`Error::UnsupportedField`] or
    /// [`Error::Config`], naming the key.
    pub fn parse(stdin: &[u8]) -> Result<Self, Error> {
        let value = serde_json::from_slice::<Value>(stdin)
            .map_err(|e| Error::Decode(format!("the network configuration is not JSON: {e}")))?;
        let root = Object::root(&value, "the network configuration")?;
        let version = parse_version(&root)?;
        let name = root.string("name")?.unwrap_or_default();
        check_identifier("the network name", &name).map_err(Error::Config)?;
        Ok(Self {
            version,
            run_dir: root
                .string("runDir")?
                .filter(|d| !d.is_empty())
                .map(PathBuf::from),
            ipam: parse_ipam(&root)?,
            name,
            raw: stdin.to_vec(),
            document: value,
        })
    }

    /// Decodes what concerns an attachment that is to be made or checked.
    ///
    /// # Errors
    /// [`Error::Decode`], [`Error::UnsupportedField`] or [`Error::Config`], naming the key.
    pub fn pod(&self) -> Result<PodConf, Error> {
        let root = Object::root(&self.document, "the network configuration")?;
        check_runtime_config(&root, self.ipam.is_some())?;
        let dns = root.object("dns")?.map(|o| Dns::parse(&o)).transpose()?;
        Ok(PodConf {
            mtu: parse_mtu(&root)?,
            dns: dns.unwrap_or_default(),
            host_ports: host_ports(&root)?,
            prev_result: root.get("prevResult").map(AddResult::parse).transpose()?,
        })
    }

    /// What the runtime still knows (GC); none when it does not say.
    ///
    /// # Errors
    /// [`Error::Decode`] naming the key.
    pub fn valid_attachments(&self) -> Result<Option<Vec<Attachment>>, Error> {
        let root = Object::root(&self.document, "the network configuration")?;
        parse_valid(&root, &self.name)
    }

    /// The run directory: of the configuration, of the environment, the default.
    pub fn run_dir(&self, environment: Option<&PathBuf>) -> PathBuf {
        let configured = self.run_dir.as_ref().or(environment);
        configured
            .cloned()
            .unwrap_or_else(|| DEFAULT_RUN_DIR.into())
    }
}

fn parse_version(root: &Object<'_>) -> Result<Version, Error> {
    // Go plugins read an absent version as 0.1.0, which is older than what is spoken here.
    let text = root.string("cniVersion")?.unwrap_or_else(|| "0.1.0".into());
    Version::parse(&text).ok_or_else(|| {
        let spoken = Version::ALL.map(Version::as_str).join(", ");
        Error::IncompatibleVersion(format!(
            "the configuration speaks CNI version {text}; weft-cni speaks {spoken}"
        ))
    })
}

fn parse_ipam(root: &Object<'_>) -> Result<Option<String>, Error> {
    let Some(ipam) = root.object("ipam")? else {
        return Ok(None);
    };
    let Some(kind) = ipam.string("type")?.filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    if kind.contains('/') || matches!(kind.as_str(), "." | "..") {
        return Err(Error::Config(format!(
            "ipam.type '{kind}' is a path; it must be the name of a plugin in CNI_PATH"
        )));
    }
    Ok(Some(kind))
}

fn parse_mtu(root: &Object<'_>) -> Result<Option<u32>, Error> {
    match root.number("mtu")? {
        None | Some(0) => Ok(None),
        Some(mtu) if (MTU_MIN..=MTU_MAX).contains(&mtu) => Ok(Some(mtu)),
        Some(mtu) => Err(Error::Config(format!(
            "mtu {mtu} is not between {MTU_MIN} and {MTU_MAX}"
        ))),
    }
}

/// Capability arguments are checked for shape, and refused where ignoring them would give the pod
/// something else than was asked for. Bandwidth belongs to a chained plugin.
fn check_runtime_config(root: &Object<'_>, delegated: bool) -> Result<(), Error> {
    root.object("capabilities")?;
    let Some(runtime) = root.object("runtimeConfig")? else {
        return Ok(());
    };
    let addresses = runtime.strings("ips")?;
    if !addresses.is_empty() && !delegated {
        return Err(Error::UnsupportedField {
            key: runtime.name("ips"),
            value: addresses.join(","),
            reason: "addresses are given by the agent; delegate ipam to a plugin that takes them",
        });
    }
    if let Some(mac) = runtime.string("mac")?.filter(|m| !m.is_empty()) {
        return Err(Error::UnsupportedField {
            key: runtime.name("mac"),
            value: mac,
            reason: "a pod's MAC is derived from its address",
        });
    }
    Ok(())
}

/// Mappings without a host port ask for nothing.
fn host_ports(root: &Object<'_>) -> Result<Vec<HostPort>, Error> {
    let Some(runtime) = root.object("runtimeConfig")? else {
        return Ok(Vec::new());
    };
    let mut ports = Vec::new();
    for mapping in runtime.objects("portMappings")? {
        let host_port = port(&mapping, "hostPort")?;
        let container_port = port(&mapping, "containerPort")?;
        let protocol = mapping.string("protocol")?.unwrap_or_default();
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            _ => {
                let name = mapping.name("protocol");
                let message = format!("{name}: '{protocol}' is none of tcp, udp, sctp");
                return Err(Error::Config(message));
            }
        };
        let host_ip = host_ip(&mapping)?;
        if let Some(host_port) = host_port {
            let name = mapping.name("containerPort");
            let missing = || Error::Config(format!("{name} is missing"));
            ports.push(HostPort {
                protocol,
                host_port,
                container_port: container_port.ok_or_else(missing)?,
                host_ip,
            });
        }
    }
    Ok(ports)
}

/// A port; 0 is none.
fn port(mapping: &Object<'_>, key: &str) -> Result<Option<u16>, Error> {
    let number = mapping.number(key)?.filter(|number| *number != 0);
    let read = |number: u32| {
        let wrong = || Error::Config(format!("{}: {number} is not a port", mapping.name(key)));
        u16::try_from(number).map_err(|_| wrong())
    };
    number.map(read).transpose()
}

fn host_ip(mapping: &Object<'_>) -> Result<Option<IpAddr>, Error> {
    let Some(text) = mapping.string("hostIP")?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let key = mapping.name("hostIP");
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => Err(Error::UnsupportedField {
            key,
            value: text,
            reason: "nothing comes to the pod from the node's loopback; name an address of the node, or none",
        }),
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(Error::Config(format!(
            "{key}: '{text}' is not an IP address"
        ))),
    }
}

/// `cni.dev/valid-attachments`; `cni.dev/attachments` is what the first runtimes sent.
fn parse_valid(root: &Object<'_>, network: &str) -> Result<Option<Vec<Attachment>>, Error> {
    const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let Some(key) = KEYS.into_iter().find(|k| root.has(k)) else {
        return Ok(None);
    };
    let mut valid = Vec::new();
    for entry in root.objects(key)? {
        let text = |field: &str| {
            let found = entry.string(field)?;
            found.ok_or_else(|| Error::Decode(format!("{} is missing", entry.name(field))))
        };
        valid.push(Attachment {
            network: network.to_owned(),
            container_id: text("containerID")?,
            ifname: text("ifname")?,
        });
    }
    Ok(Some(valid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: &Value) -> Result<NetConf, Error> {
        NetConf::parse(value.to_string().as_bytes())
    }

    #[test]
    fn every_version_is_spoken_and_others_are_code_1() {
        for version in Version::ALL {
            let conf = parse(&json!({"cniVersion": version.as_str(), "name": "weft"}));
            assert_eq!(conf.unwrap().version, version);
        }
        for other in ["0.1.0", "0.2.0", "1.2.0", "2.0.0", "x"] {
            let error = parse(&json!({"cniVersion": other, "name": "weft"})).unwrap_err();
            assert_eq!(error.code(), 1, "{other}");
        }
        assert_eq!(parse(&json!({"name": "weft"})).unwrap_err().code(), 1);
    }

    #[test]
    fn containerd_style_configuration_is_read() {
        // Go-cased keys of a containerd CRI call, with a previous plugin's result.
        let conf = parse(&json!({
            "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "weft-cni",
            "capabilities": {"portMappings": true, "dns": true, "bandwidth": true},
            "runtimeConfig": {
                "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
                "dns": {"Servers": ["10.96.0.10"], "Searches": null, "Options": null},
                "bandwidth": {"IngressRate": 0, "IngressBurst": 4_294_967_295_u32},
                "io.kubernetes.cri.pod-annotations": {"a/b": "c"},
            },
            "RunDir": "/run/other", "MTU": 1400,
            "IPAM": {"Type": "host-local"},
            "prevResult": {"cniVersion": "1.0.0", "Interfaces": [{"Name": "lo"}]},
        }))
        .unwrap();
        assert_eq!(conf.run_dir(None), PathBuf::from("/run/other"));
        assert_eq!(conf.ipam.as_deref(), Some("host-local"));
        let pod = conf.pod().unwrap();
        assert_eq!(pod.mtu, Some(1400));
        let port = &pod.host_ports[0];
        assert_eq!(
            (port.protocol, port.host_port, port.container_port),
            (6, 8080, 80)
        );
        assert_eq!(port.host_ip, None);
        assert_eq!(pod.prev_result.unwrap().interfaces[0].name, "lo");
    }

    #[test]
    fn podman_style_configuration_is_read() {
        let conf = parse(&json!({
            "cniVersion": "0.4.0", "name": "peersnet", "type": "weft-cni",
            "capabilities": {"portMappings": true, "aliases": true},
            "runtimeConfig": {
                "portMappings": [{"hostPort": 18080, "containerPort": 80, "protocol": "SCTP", "hostIP": "192.0.2.1"}, {"hostPort": 0}],
                "aliases": {"peersnet": ["a"]},
            },
        }))
        .unwrap();
        assert_eq!(conf.run_dir(None), PathBuf::from("/run/weft"));
        let environment = PathBuf::from("/run/env");
        assert_eq!(conf.run_dir(Some(&environment)), environment);
        let pod = conf.pod().unwrap();
        assert_eq!(pod.mtu, None);
        let port = HostPort {
            protocol: 132,
            host_port: 18_080,
            container_port: 80,
            host_ip: Some([192, 0, 2, 1].into()),
        };
        assert_eq!(pod.host_ports, [port]);
        assert_eq!(conf.valid_attachments().unwrap(), None);
        assert_eq!(conf.ipam, None);
    }

    #[test]
    fn senseless_values_name_their_key_and_code() {
        let with = |key: &str, value: Value| {
            let mut conf = json!({"cniVersion": "1.1.0", "name": "weft"});
            conf[key] = value;
            let error = parse(&conf).and_then(|c| {
                c.pod()?;
                c.valid_attachments()
            });
            let error = error.unwrap_err();
            (error.code(), error.to_string())
        };
        for (key, value, code, says) in [
            ("name", json!(""), 7, "network name"),
            ("name", json!("a/b"), 7, "network name"),
            ("name", json!(1), 6, "name is not a string"),
            ("mtu", json!(68), 7, "mtu 68"),
            ("mtu", json!("1500"), 6, "mtu is not"),
            ("ipam", json!({"type": "../x"}), 7, "ipam.type"),
            ("ipam", json!([]), 6, "ipam is not"),
            (
                "runtimeConfig",
                json!({"ips": ["10.0.0.1/24"]}),
                2,
                "runtimeConfig.ips",
            ),
            (
                "runtimeConfig",
                json!({"portMappings": [{"hostPort": 70_000}]}),
                7,
                "portMappings[0].hostPort: 70000 is not a port",
            ),
            (
                "runtimeConfig",
                json!({"portMappings": [{"hostPort": 80}]}),
                7,
                "portMappings[0].containerPort is missing",
            ),
            (
                "runtimeConfig",
                json!({"portMappings": [{"protocol": "icmp"}]}),
                7,
                "'icmp' is none of",
            ),
            (
                "runtimeConfig",
                json!({"portMappings": [{"hostIP": "node"}]}),
                7,
                "hostIP: 'node' is not an IP address",
            ),
            (
                "runtimeConfig",
                json!({"portMappings": [{"hostIP": "127.0.0.1"}]}),
                2,
                "runtimeConfig.portMappings[0].hostIP",
            ),
            (
                "runtimeConfig",
                json!({"MAC": "02:00:00:00:00:01"}),
                2,
                "runtimeConfig.mac",
            ),
            (
                "runtimeConfig",
                json!({"portMappings": [{"hostPort": "x"}]}),
                6,
                "portMappings[0].hostPort",
            ),
            (
                "prevResult",
                json!({"ips": [{"address": "nonsense"}]}),
                6,
                "address",
            ),
            (
                "cni.dev/valid-attachments",
                json!([{"ifname": "eth0"}]),
                6,
                "containerID is missing",
            ),
        ] {
            let (got, message) = with(key, value);
            assert_eq!(got, code, "{message}");
            assert!(message.contains(says), "{message}");
        }
        assert_eq!(NetConf::parse(b"{").unwrap_err().code(), 6);
        assert_eq!(NetConf::parse(b"[]").unwrap_err().code(), 6);
    }

    #[test]
    fn del_does_not_look_at_what_only_add_needs() {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "weft", "mtu": 1,
            "prevResult": "nonsense", "runtimeConfig": {"ips": ["10.0.0.1/24"]},
        });
        assert!(parse(&conf).unwrap().pod().is_err());
    }

    #[test]
    fn valid_attachments_are_read_under_both_keys_and_absence_is_not_emptiness() {
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let mut conf = json!({"cniVersion": "1.1.0", "name": "weft"});
            conf[key] = json!([{"containerID": "a", "ifname": "eth0"}]);
            let valid = parse(&conf).unwrap().valid_attachments().unwrap().unwrap();
            assert_eq!(valid[0].container_id, "a");
            assert_eq!(valid[0].network, "weft");
            conf[key] = json!(null);
            let valid = parse(&conf).unwrap().valid_attachments();
            assert_eq!(valid.unwrap(), Some(Vec::new()));
        }
        let absent = parse(&json!({"cniVersion": "1.1.0", "name": "weft"})).unwrap();
        assert_eq!(absent.valid_attachments().unwrap(), None);
    }
}
