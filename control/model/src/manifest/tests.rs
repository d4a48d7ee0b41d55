use super::*;

fn keys(manifest: &Manifest) -> Vec<String> {
    manifest.objects.iter().map(|o| o.key.to_string()).collect()
}

fn errors(file: &str, text: &str) -> Vec<String> {
    let errors = parse(file, text.as_bytes()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

const EVERY_KIND: &str = "\
apiVersion: v1
kind: Node
metadata: {name: a}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: red}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop}
spec:
  containers: [{name: web, image: nginx, ports: [{name: http, containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, ports: [{port: 80, targetPort: http}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x}
addressType: IPv4
endpoints: [{addresses: [10.1.2.3], conditions: {ready: true}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}}
---
apiVersion: vpcresources.k8s.aws/v1beta1
kind: SecurityGroupPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {}, securityGroups: {groupIds: [sg-1]}}
---
apiVersion: weft.dev/v1alpha1
kind: SecurityGroup
metadata: {name: sg-1}
spec: {inbound: [{protocol: tcp, fromPort: 80, cidr: 10.0.0.0/8}]}
";

#[test]
fn every_kind_is_read_and_a_missing_namespace_is_default() {
    let manifest = parse("all.yaml", EVERY_KIND.as_bytes()).unwrap();
    assert_eq!(
        keys(&manifest),
        [
            "Node a",
            "Namespace shop",
            "Pod shop/web-0",
            "Service default/web",
            "EndpointSlice default/web-x",
            "NetworkPolicy default/deny",
            "ServiceAccount shop/web",
            "ClusterNetworkPolicy guard",
            "SecurityGroupPolicy shop/db",
            "SecurityGroup sg-1"
        ]
    );
    let lines: Vec<usize> = manifest.objects.iter().map(|o| o.line).collect();
    assert_eq!(lines, [1, 5, 9, 15, 20, 26, 31, 35, 40, 45]);
}

#[test]
fn lists_are_unpacked_in_yaml_and_json() {
    let yaml = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n";
    let manifest = parse("list.yaml", yaml.as_bytes()).unwrap();
    assert_eq!(keys(&manifest), ["Node a", "Pod default/p"]);
    assert_eq!([manifest.objects[0].line, manifest.objects[1].line], [4, 7]);
    let json = r#"{"apiVersion":"v1","kind":"PodList","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}]}"#;
    for file in ["list.json", "list.yaml"] {
        assert_eq!(
            keys(&parse(file, json.as_bytes()).unwrap()),
            ["Pod default/p"]
        );
    }
}

#[test]
fn json_documents_may_follow_each_other() {
    let json = "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"a\"}}\n\t{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"b\"}}";
    let manifest = parse("x.json", json.as_bytes()).unwrap();
    assert_eq!(keys(&manifest), ["Node a", "Node b"]);
}

#[test]
fn kinds_of_others_are_noted() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: 7\n---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: s}\n";
    let manifest = parse("x.yaml", text.as_bytes()).unwrap();
    assert_eq!(
        manifest.notes,
        [
            "x.yaml:1: Deployment shop/web: weft does not read apps/v1 Deployment",
            "x.yaml:6: Service s: weft does not read serving.knative.dev/v1 Service"
        ]
    );
}

#[test]
fn errors_name_file_line_and_object() {
    for (text, expected) in [
        (
            "",
            "x.yaml:1: is empty; remove the file to remove its objects",
        ),
        ("just text\n", "x.yaml:1: "),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec:\n  podCIDRs:\n  - 10.1.2.0/24\n  - 10.1.300.0/24\n",
            "x.yaml:7: Node a: spec.podCIDRs: '10.1.300.0/24' is not a prefix like 10.1.2.0/24",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDRs: [10.1.0.0/16, 10.1.2.0/24]}\n",
            "x.yaml:4: Node a: spec.podCIDRs: 10.1.2.0/24 overlaps 10.1.0.0/16",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.1.2.0/2}\n",
            "x.yaml:4: Node a: spec.podCIDR: 0.0.0.0/2 is not a range of unicast addresses",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.1.2.4/31}\n",
            "x.yaml:4: Node a: spec.podCIDR: 10.1.2.4/31 has no room for weft0 and a pod",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nstatus:\n  addresses:\n  - type: InternalIP\n    address: 192.0.2\n",
            "x.yaml:7: Node a: status.addresses: InternalIP '192.0.2' is not an IP address",
        ),
        (
            "kind: Node\nmetadata: {name: a}\n",
            "x.yaml:1: is not a Kubernetes object: no apiVersion and kind",
        ),
        (
            "apiVersion: v1\nkind: Pod\n",
            "x.yaml:1: Pod (without a name): has no metadata.name",
        ),
        (
            "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: p}\n",
            "x.yaml:1: NetworkPolicy p: weft reads NetworkPolicy as networking.k8s.io/v1, not as extensions/v1beta1",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n",
            "x.yaml:5: Pod p: is in this file twice",
        ),
        ("a: 1\n--- \nb: [1,\n---\nc: 1\n", "x.yaml:1: "),
    ] {
        let found = errors("x.yaml", text);
        assert!(
            found[0].starts_with(expected),
            "{found:?} is not {expected}"
        );
    }
}

#[test]
fn a_wrong_type_is_told_at_its_line() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: ok}\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels:\n    app: [1]\n";
    let found = errors("x.yaml", text);
    assert!(found[0].starts_with("x.yaml:10: Pod p: "), "{found:?}");
    let item = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":7}}]}"#;
    assert!(errors("x.json", item)[0].starts_with("x.json:1: Pod p: "));
}

#[test]
fn bytes_that_are_no_text_are_told_with_their_line() {
    let errors = parse("x.yaml", b"a: 1\nb: \xff\n").unwrap_err();
    assert_eq!(errors[0].to_string(), "x.yaml:2: is not UTF-8 text");
}

#[test]
fn alias_bombs_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 9].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    assert!(!errors("x.yaml", &text).is_empty());
}
