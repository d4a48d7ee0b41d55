//! The kinds of Kubernetes objects weft reads.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::cluster_network_policy::ClusterNetworkPolicy;
use super::security_group::{SecurityGroup, SecurityGroupPolicy};

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
    /// Whom a pod runs as; its labels matter to security groups.
    ServiceAccount,
    /// A policy of the whole cluster.
    ClusterNetworkPolicy,
    /// Which pods have which security groups.
    SecurityGroupPolicy,
    /// What a security group allows.
    SecurityGroup,
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
    /// See [`Kind::ServiceAccount`].
    ServiceAccount(Arc<ServiceAccount>),
    /// See [`Kind::ClusterNetworkPolicy`].
    ClusterNetworkPolicy(Arc<ClusterNetworkPolicy>),
    /// See [`Kind::SecurityGroupPolicy`].
    SecurityGroupPolicy(Arc<SecurityGroupPolicy>),
    /// See [`Kind::SecurityGroup`].
    SecurityGroup(Arc<SecurityGroup>),
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

impl ObjectKey {
    /// The key of an object with these metadata; one without a namespace is in `default`. None
    /// without a name.
    pub fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Option<Self> {
        let given = namespace.filter(|namespace| !namespace.is_empty());
        let namespace = match kind.is_namespaced() {
            true => given.unwrap_or("default"),
            false => "",
        };
        (!name.is_empty()).then(|| Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
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
    pub const ALL: [Self; 10] = [
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ServiceAccount,
        Self::ClusterNetworkPolicy,
        Self::SecurityGroupPolicy,
        Self::SecurityGroup,
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
            Self::ServiceAccount => "ServiceAccount",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::SecurityGroupPolicy => "SecurityGroupPolicy",
            Self::SecurityGroup => "SecurityGroup",
        }
    }

    /// The one `apiVersion` we read it in.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Node | Self::Namespace | Self::Pod | Self::Service | Self::ServiceAccount => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
            Self::SecurityGroupPolicy => "vpcresources.k8s.aws/v1beta1",
            Self::SecurityGroup => "weft.dev/v1alpha1",
        }
    }

    /// False for kinds of the whole cluster.
    pub fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::Node | Self::Namespace | Self::ClusterNetworkPolicy | Self::SecurityGroup
        )
    }

    /// Whether objects of this kind say which connections may be. A broken one must not be passed
    /// over: nobody may reach a pod because the policy that forbids it cannot be read.
    pub fn is_policy(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicy
                | Self::ClusterNetworkPolicy
                | Self::SecurityGroupPolicy
                | Self::SecurityGroup
        )
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
            Self::ServiceAccount => Resource::ServiceAccount(Arc::new(decoder.decode()?)),
            Self::ClusterNetworkPolicy => {
                Resource::ClusterNetworkPolicy(Arc::new(decoder.decode()?))
            }
            Self::SecurityGroupPolicy => Resource::SecurityGroupPolicy(Arc::new(decoder.decode()?)),
            Self::SecurityGroup => Resource::SecurityGroup(Arc::new(decoder.decode()?)),
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
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::ClusterNetworkPolicy(_) => Kind::ClusterNetworkPolicy,
            Self::SecurityGroupPolicy(_) => Kind::SecurityGroupPolicy,
            Self::SecurityGroup(_) => Kind::SecurityGroup,
        }
    }

    /// Whether both are one object in memory, and so unchanged.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Node(a), Self::Node(b)) => Arc::ptr_eq(a, b),
            (Self::Namespace(a), Self::Namespace(b)) => Arc::ptr_eq(a, b),
            (Self::Pod(a), Self::Pod(b)) => Arc::ptr_eq(a, b),
            (Self::Service(a), Self::Service(b)) => Arc::ptr_eq(a, b),
            (Self::EndpointSlice(a), Self::EndpointSlice(b)) => Arc::ptr_eq(a, b),
            (Self::NetworkPolicy(a), Self::NetworkPolicy(b)) => Arc::ptr_eq(a, b),
            (Self::ServiceAccount(a), Self::ServiceAccount(b)) => Arc::ptr_eq(a, b),
            (Self::ClusterNetworkPolicy(a), Self::ClusterNetworkPolicy(b)) => Arc::ptr_eq(a, b),
            (Self::SecurityGroupPolicy(a), Self::SecurityGroupPolicy(b)) => Arc::ptr_eq(a, b),
            (Self::SecurityGroup(a), Self::SecurityGroup(b)) => Arc::ptr_eq(a, b),
            _ => false,
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
            Self::ServiceAccount(o) => &o.metadata,
            Self::ClusterNetworkPolicy(o) => &o.metadata,
            Self::SecurityGroupPolicy(o) => &o.metadata,
            Self::SecurityGroup(o) => &o.metadata,
        }
    }

    /// Its key; an object without a namespace is in `default`. None without a name.
    pub fn key(&self) -> Option<ObjectKey> {
        let metadata = self.metadata();
        let namespace = metadata.namespace.as_deref();
        ObjectKey::new(self.kind(), namespace, metadata.name.as_deref()?)
    }
}
