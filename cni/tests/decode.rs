//! Whatever comes on standard input or in the environment, decoding gives a value or an error.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value};

/// Keys the decoder looks for, so that random documents reach its depths.
const KEYS: &[&str] = &[
    "cniVersion",
    "name",
    "type",
    "runDir",
    "mtu",
    "ipam",
    "dns",
    "capabilities",
    "runtimeConfig",
    "portMappings",
    "HostPort",
    "containerPort",
    "hostIP",
    "protocol",
    "ips",
    "mac",
    "prevResult",
    "interfaces",
    "sandbox",
    "Address",
    "gateway",
    "interface",
    "routes",
    "dst",
    "gw",
    "table",
    "nameservers",
    "search",
    "options",
    "domain",
    "cni.dev/valid-attachments",
    "containerID",
    "ifname",
    "Name",
    "MTU",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "1.1.0",
            "0.4.0",
            "weft",
            "host-local",
            "10.0.0.1/24",
            "fd00::1/128",
            "::/200",
            "",
            "eth0",
            "IgnoreUnknown=1;IP=x",
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        let key = prop_oneof![prop::sample::select(KEYS).prop_map(str::to_owned), ".{0,8}",];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..8)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        weft_cni::decode_any(&bytes);
    }

    #[test]
    fn any_json_is_decoded_or_refused(value in json()) {
        weft_cni::decode_any(value.to_string().as_bytes());
    }

    #[test]
    fn any_value_under_a_known_key_is_decoded_or_refused(
        key in prop::sample::select(KEYS),
        value in json(),
    ) {
        let mut document = serde_json::json!({"cniVersion": "1.1.0", "name": "weft"});
        document[key] = value;
        weft_cni::decode_any(document.to_string().as_bytes());
    }

    #[test]
    fn any_arguments_are_decoded_or_refused(text in "([A-Za-z0-9_]{0,12}[=;]{0,2}){0,8}") {
        weft_cni::decode_any(text.as_bytes());
    }
}

#[test]
fn committed_corpus_is_decoded_or_refused() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let files = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let count = files
        .map(|f| weft_cni::decode_any(&std::fs::read(f.path()).unwrap()))
        .count();
    assert!(count >= 10, "{count}");
}
