//! The kinds of Kubernetes objects weft reads.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

/// A kind weft reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A machine of the cluster.
    Node,
    /// A namespace; its labels matter to policies.
    Namespace,
    /// A pod.
    Pod,
    /// A service.
    Service,
    /// Endpoints of a service.
    EndpointSlice,
    /// A policy.
    NetworkPolicy,
}

/// One object; a clone shares it.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// See [`Kind::Node`].
    Node(Arc<Node>),
    /// See [`Kind::Namespace`].
    Namespace(Arc<Namespace>),
    /// See [`Kind::Pod`].
    Pod(Arc<Pod>),
    /// See [`Kind::Service`].
    Service(Arc<Service>),
    /// See [`Kind::EndpointSlice`].
    EndpointSlice(Arc<EndpointSlice>),
    /// See [`Kind::NetworkPolicy`].
    NetworkPolicy(Arc<NetworkPolicy>),
}

/// What names an object in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.name())?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
    ];

    /// `kind` as manifests write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// The one `apiVersion` we read it in.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Node | Self::Namespace | Self::Pod | Self::Service => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
        }
    }

    /// False for kinds of the whole cluster.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::Namespace)
    }

    /// The kind called `name` in an API group we know. A kind of the same name in a foreign group
    /// (`serving.knative.dev` has a Service) is somebody else's; another version of a known group
    /// is ours, and an error later, for a policy must not be passed over in silence.
    pub fn find(api_version: &str, name: &str) -> Option<Self> {
        let group = |version: &str| version.rsplit_once('/').map_or("", |(g, _)| g).to_owned();
        let known = |kind: &Self| {
            let groups = [group(kind.api_version()), "extensions".to_owned()];
            kind.name() == name && groups.contains(&group(api_version))
        };
        Self::ALL.into_iter().find(known)
    }

    /// Decodes an object of this kind with whatever decodes any type.
    ///
    /// # Errors
    /// The decoder's.
    pub fn decode<E>(self, decoder: impl Decoder<Error = E>) -> Result<Resource, E> {
        Ok(match self {
            Self::Node => Resource::Node(Arc::new(decoder.decode()?)),
            Self::Namespace => Resource::Namespace(Arc::new(decoder.decode()?)),
            Self::Pod => Resource::Pod(Arc::new(decoder.decode()?)),
            Self::Service => Resource::Service(Arc::new(decoder.decode()?)),
            Self::EndpointSlice => Resource::EndpointSlice(Arc::new(decoder.decode()?)),
            Self::NetworkPolicy => Resource::NetworkPolicy(Arc::new(decoder.decode()?)),
        })
    }
}

/// Something that holds one encoded object.
pub trait Decoder {
    /// Why it cannot be decoded.
    type Error;

    /// Decodes it as a `T`.
    ///
    /// # Errors
    /// When it is not a `T`.
    fn decode<T: DeserializeOwned>(self) -> Result<T, Self::Error>;
}

impl Resource {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Namespace(_) => Kind::Namespace,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Node(o) => &o.metadata,
            Self::Namespace(o) => &o.metadata,
            Self::Pod(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::NetworkPolicy(o) => &o.metadata,
        }
    }

    /// Its key; an object without a namespace is in `default`. None without a name.
    pub fn key(&self) -> Option<ObjectKey> {
        let metadata = self.metadata();
        let kind = self.kind();
        let given = metadata.namespace.as_deref().filter(|n| !n.is_empty());
        let namespace = match kind.is_namespaced() {
            true => given.unwrap_or("default"),
            false => "",
        };
        let name = metadata.name.clone().filter(|name| !name.is_empty())?;
        Some(ObjectKey {
            kind,
            namespace: namespace.to_owned(),
            name,
        })
    }
}
