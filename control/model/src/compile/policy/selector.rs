//! What policies select by, in a form in which two that mean the same are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of a pod, namespace, node or service account.
pub(super) type Labels = BTreeMap<String, String>;

/// A label selector of the Kubernetes API: all of its requirements hold. Without any it matches
/// everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LabelQuery(BTreeSet<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

/// Namespaces pods are selected in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NamespaceQuery {
    /// The one with this name.
    Named(String),
    /// Those with these labels.
    Labelled(LabelQuery),
}

/// Pods by namespace and own labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PodQuery {
    pub namespaces: NamespaceQuery,
    pub pods: LabelQuery,
}

/// Addresses in a block, without those in the exceptions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Block {
    pub cidr: IpNet,
    pub except: BTreeSet<IpNet>,
}

/// Peers a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Selector {
    /// Pods.
    Pods(PodQuery),
    /// Whoever has an address of a block: pods, nodes and what is outside.
    Block(Block),
    /// Nodes, by their labels.
    Nodes(LabelQuery),
    /// Pods that have the security group with this id.
    Group(String),
}

/// What a selector was written wrong by: the place below it, the value and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SelectorFault {
    pub place: String,
    pub value: String,
    pub reason: String,
}

impl LabelQuery {
    /// Reads a label selector.
    ///
    /// # Errors
    /// A requirement the Kubernetes API refuses: an unknown operator, `In` or `NotIn` without
    /// values, `Exists` or `DoesNotExist` with values, no key.
    pub fn of(selector: &LabelSelector) -> Result<Self, SelectorFault> {
        let mut requirements = BTreeSet::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            let values = BTreeSet::from([value.clone()]);
            requirements.insert(Requirement::In(key.clone(), values));
        }
        let expressions = selector.match_expressions.iter().flatten();
        for (index, expression) in expressions.enumerate() {
            let fault = |(value, reason): (String, String)| SelectorFault {
                place: format!(".matchExpressions[{index}]"),
                value,
                reason,
            };
            requirements.insert(Requirement::of(expression).map_err(fault)?);
        }
        Ok(Self(requirements))
    }

    /// Whether all requirements hold.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn of(expression: &LabelSelectorRequirement) -> Result<Self, (String, String)> {
        let key = expression.key.clone();
        let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
        let operator = expression.operator.as_str();
        let bad = |reason: String| Err((operator.to_owned(), reason));
        if key.is_empty() {
            return bad("has no key".to_owned());
        }
        match (operator, values.is_empty()) {
            ("In", false) => Ok(Self::In(key, values)),
            ("NotIn", false) => Ok(Self::NotIn(key, values)),
            ("Exists", true) => Ok(Self::Exists(key)),
            ("DoesNotExist", true) => Ok(Self::DoesNotExist(key)),
            ("In" | "NotIn", true) => bad(format!("{operator} needs values")),
            ("Exists" | "DoesNotExist", false) => bad(format!("{operator} takes no values")),
            _ => bad(format!(
                "'{operator}' is not an operator; there are In, NotIn, Exists and DoesNotExist"
            )),
        }
    }

    /// A label that is absent is in no set: `NotIn` holds without it.
    fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => !labels.get(key).is_some_and(|v| values.contains(v)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

impl NamespaceQuery {
    /// Every namespace.
    pub fn all() -> Self {
        Self::Labelled(LabelQuery::default())
    }

    /// Whether the namespace `name` with these labels is one of them.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        match self {
            Self::Named(wanted) => wanted == name,
            Self::Labelled(query) => query.matches(labels),
        }
    }
}

impl PodQuery {
    /// All pods of a namespace.
    pub fn in_namespace(namespace: &str) -> Self {
        Self {
            namespaces: NamespaceQuery::Named(namespace.to_owned()),
            pods: LabelQuery::default(),
        }
    }

    /// All pods there are.
    pub fn all() -> Self {
        Self {
            namespaces: NamespaceQuery::all(),
            pods: LabelQuery::default(),
        }
    }
}

impl Block {
    /// Reads a block.
    ///
    /// # Errors
    /// A text that is no prefix, or an exception that is not a part of the block.
    pub fn of(cidr: &str, except: &[String]) -> Result<Self, SelectorFault> {
        let block = prefix(cidr).map_err(|fault| fault.at(".cidr"))?;
        let mut parts = BTreeSet::new();
        for (index, text) in except.iter().enumerate() {
            let place = format!(".except[{index}]");
            let part = prefix(text).map_err(|fault| fault.at(&place))?;
            if !block.contains(&part) || part == block {
                let reason = format!("{part} is not a part of {block}");
                return Err(SelectorFault::new(text, reason).at(&place));
            }
            parts.insert(part);
        }
        Ok(Self {
            cidr: block,
            except: parts,
        })
    }

    /// Whether all addresses of `prefix` are meant. A prefix that is an exception or wider than
    /// one is not asked for: each exception has a class of its own.
    pub fn contains(&self, prefix: &IpNet) -> bool {
        self.cidr.contains(prefix) && !self.except.iter().any(|part| part.contains(prefix))
    }
}

impl SelectorFault {
    /// A fault of a value.
    pub fn new(value: &str, reason: String) -> Self {
        Self {
            place: String::new(),
            value: value.to_owned(),
            reason,
        }
    }

    /// The same, found below `place`.
    pub fn at(mut self, place: &str) -> Self {
        self.place.insert_str(0, place);
        self
    }
}

fn prefix(text: &str) -> Result<IpNet, SelectorFault> {
    let parsed: Result<IpNet, _> = text.parse();
    let reason = || format!("'{text}' is not a prefix like 10.1.2.0/24");
    Ok(parsed
        .map_err(|_| SelectorFault::new(text, reason()))?
        .trunc())
}

impl fmt::Display for SelectorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}
