//! The result of ADD, in the shape of each version of the specification.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::json::Object;
use crate::types::Version;

/// What ADD gives and later commands get back as `prevResult`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddResult {
    /// Interfaces made or touched, on the node and in the pod.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes in the pod.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Dns,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Ethernet address.
    pub mac: Option<String>,
    /// MTU in bytes; since 1.1.0.
    pub mtu: Option<u32>,
    /// Network namespace; none: the node's.
    pub sandbox: Option<String>,
    /// Socket of a userspace interface; since 1.1.0.
    pub socket_path: Option<String>,
    /// PCI device; since 1.1.0.
    pub pci_id: Option<String>,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Address and prefix length.
    pub address: IpNet,
    /// Default gateway of its subnet.
    pub gateway: Option<String>,
    /// Index of the interface that holds it.
    pub interface: Option<u32>,
}

/// One route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Destination prefix.
    pub dst: String,
    /// Next hop.
    pub gw: Option<String>,
    /// Path MTU in bytes; since 1.1.0.
    pub mtu: Option<u32>,
    /// MSS advertised; since 1.1.0.
    pub advmss: Option<u32>,
    /// Metric; since 1.1.0.
    pub priority: Option<u32>,
    /// Routing table; since 1.1.0.
    pub table: Option<u32>,
    /// Scope; since 1.1.0.
    pub scope: Option<u32>,
}

/// Name servers as the container should use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// Local domain.
    pub domain: Option<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

impl AddResult {
    /// Reads a result of any version spoken here.
    ///
    /// # Errors
    /// [`Error::Decode`] naming the key.
    pub fn parse(value: &Value) -> Result<Self, Error> {
        let root = Object::root(value, "the result")?;
        let interfaces = root.objects("interfaces")?;
        let ips = root.objects("ips")?;
        let routes = root.objects("routes")?;
        let dns = root.object("dns")?.map(|o| Dns::parse(&o)).transpose()?;
        Ok(Self {
            interfaces: interfaces
                .iter()
                .map(Interface::parse)
                .collect::<Result<_, _>>()?,
            ips: ips.iter().map(Ip::parse).collect::<Result<_, _>>()?,
            routes: routes.iter().map(Route::parse).collect::<Result<_, _>>()?,
            dns: dns.unwrap_or_default(),
        })
    }

    /// The document in the shape of `version`.
    pub fn to_document(&self, version: Version) -> Value {
        let mut document = Fields::default();
        document.put("cniVersion", Some(version.as_str()));
        let list = |values: Vec<Value>| (!values.is_empty()).then_some(values);
        let interfaces = self.interfaces.iter().map(|i| i.to_value(version));
        document.put("interfaces", list(interfaces.collect()));
        document.put(
            "ips",
            list(self.ips.iter().map(|i| i.to_value(version)).collect()),
        );
        let routes = self.routes.iter().map(|r| r.to_value(version));
        document.put("routes", list(routes.collect()));
        document.put("dns", Some(self.dns.to_value()));
        document.into()
    }
}

impl Interface {
    fn parse(object: &Object<'_>) -> Result<Self, Error> {
        Ok(Self {
            name: object.string("name")?.unwrap_or_default(),
            mac: text(object, "mac")?,
            mtu: object.number("mtu")?,
            sandbox: text(object, "sandbox")?,
            socket_path: text(object, "socketPath")?,
            pci_id: text(object, "pciID")?,
        })
    }

    fn to_value(&self, version: Version) -> Value {
        let mut fields = Fields::default();
        fields.put("name", Some(&self.name));
        fields.put("mac", self.mac.as_ref());
        if version >= Version::V1_1_0 {
            fields.put("mtu", self.mtu);
            fields.put("socketPath", self.socket_path.as_ref());
            fields.put("pciID", self.pci_id.as_ref());
        }
        fields.put("sandbox", self.sandbox.as_ref());
        fields.into()
    }
}

impl Ip {
    fn parse(object: &Object<'_>) -> Result<Self, Error> {
        let name = object.name("address");
        let address = object.string("address")?;
        let address = address.ok_or_else(|| Error::Decode(format!("{name} is missing")))?;
        let wrong = |_| {
            Error::Decode(format!(
                "{name} '{address}' is not an address with a prefix length"
            ))
        };
        Ok(Self {
            address: address.parse().map_err(wrong)?,
            gateway: text(object, "gateway")?,
            // Some plugins write -1 for "no interface".
            interface: object
                .signed("interface")?
                .and_then(|i| u32::try_from(i).ok()),
        })
    }

    fn to_value(&self, version: Version) -> Value {
        let mut fields = Fields::default();
        if version < Version::V1_0_0 {
            fields.put(
                "version",
                Some(if self.address.addr().is_ipv4() {
                    "4"
                } else {
                    "6"
                }),
            );
        }
        fields.put("interface", self.interface);
        fields.put("address", Some(self.address.to_string()));
        fields.put("gateway", self.gateway.as_ref());
        fields.into()
    }
}

impl Route {
    fn parse(object: &Object<'_>) -> Result<Self, Error> {
        Ok(Self {
            dst: object.string("dst")?.unwrap_or_default(),
            gw: text(object, "gw")?,
            mtu: object.number("mtu")?,
            advmss: object.number("advmss")?,
            priority: object.number("priority")?,
            table: object.number("table")?,
            scope: object.number("scope")?,
        })
    }

    fn to_value(&self, version: Version) -> Value {
        let mut fields = Fields::default();
        fields.put("dst", Some(&self.dst));
        fields.put("gw", self.gw.as_ref());
        if version >= Version::V1_1_0 {
            fields.put("mtu", self.mtu);
            fields.put("advmss", self.advmss);
            fields.put("priority", self.priority);
            fields.put("table", self.table);
            fields.put("scope", self.scope);
        }
        fields.into()
    }
}

impl Dns {
    /// Reads the `dns` object of a configuration or a result.
    pub(crate) fn parse(object: &Object<'_>) -> Result<Self, Error> {
        Ok(Self {
            nameservers: object.strings("nameservers")?,
            domain: text(object, "domain")?,
            search: object.strings("search")?,
            options: object.strings("options")?,
        })
    }

    /// True when it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn to_value(&self) -> Value {
        let mut fields = Fields::default();
        let list = |l: &Vec<String>| (!l.is_empty()).then(|| l.clone());
        fields.put("nameservers", list(&self.nameservers));
        fields.put("domain", self.domain.as_ref());
        fields.put("search", list(&self.search));
        fields.put("options", list(&self.options));
        fields.into()
    }
}

fn text(object: &Object<'_>, key: &str) -> Result<Option<String>, Error> {
    Ok(object.string(key)?.filter(|t| !t.is_empty()))
}

/// A JSON object under construction: absent values leave no key.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, key: &str, value: Option<impl serde::Serialize>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), json!(value));
        }
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Object(fields.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> AddResult {
        AddResult {
            interfaces: vec![
                Interface {
                    name: "weftx".into(),
                    mac: Some("02:00:00:00:00:01".into()),
                    mtu: Some(65_535),
                    ..Interface::default()
                },
                Interface {
                    name: "eth0".into(),
                    sandbox: Some("/run/netns/a".into()),
                    ..Interface::default()
                },
            ],
            ips: ["10.1.0.5/32", "fd00::5/128"]
                .map(|a| Ip {
                    address: a.parse().unwrap(),
                    gateway: Some("g".into()),
                    interface: Some(1),
                })
                .to_vec(),
            routes: vec![Route {
                dst: "0.0.0.0/0".into(),
                gw: Some("169.254.1.1".into()),
                mtu: Some(1450),
                ..Route::default()
            }],
            dns: Dns::default(),
        }
    }

    #[test]
    fn before_1_0_addresses_carry_their_family() {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            let document = example().to_document(version);
            assert_eq!(
                document,
                json!({
                    "cniVersion": version.as_str(),
                    "interfaces": [
                        {"name": "weftx", "mac": "02:00:00:00:00:01"},
                        {"name": "eth0", "sandbox": "/run/netns/a"},
                    ],
                    "ips": [
                        {"version": "4", "interface": 1, "address": "10.1.0.5/32", "gateway": "g"},
                        {"version": "6", "interface": 1, "address": "fd00::5/128", "gateway": "g"},
                    ],
                    "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
                    "dns": {},
                })
            );
        }
    }

    #[test]
    fn from_1_0_they_do_not_and_1_1_adds_mtus() {
        let document = example().to_document(Version::V1_0_0);
        assert_eq!(document["ips"][0].get("version"), None);
        assert_eq!(document["interfaces"][0].get("mtu"), None);
        assert_eq!(document["routes"][0].get("mtu"), None);
        let document = example().to_document(Version::V1_1_0);
        assert_eq!(document["ips"][0].get("version"), None);
        assert_eq!(document["interfaces"][0]["mtu"], 65_535);
        assert_eq!(document["routes"][0]["mtu"], 1450);
    }

    #[test]
    fn what_1_1_emits_is_read_back_whole() {
        let mut result = example();
        result.dns.search = vec!["cluster.local".into()];
        result.dns.domain = Some("d".into());
        let document = result.to_document(Version::V1_1_0);
        assert_eq!(AddResult::parse(&document).unwrap(), result);
    }

    #[test]
    fn results_without_interfaces_or_with_index_minus_one_are_read() {
        let value = json!({"ips": [{"version": "4", "address": "10.0.0.1/24", "interface": -1}]});
        assert_eq!(AddResult::parse(&value).unwrap().ips[0].interface, None);
        assert_eq!(AddResult::parse(&json!({})).unwrap(), AddResult::default());
    }
}
