//! Security groups between the Admin tier and NetworkPolicies.

use super::*;

const WEB_ONLY: &str = "{inbound: [{protocol: tcp, fromPort: 80, toPort: 81, group: sg-web}], outbound: [{protocol: all, cidr: 0.0.0.0/0}]}";

fn members(scene: &mut Scene, namespace: &str, spec: &str) {
    let text = format!(
        "apiVersion: vpcresources.k8s.aws/v1beta1\nkind: SecurityGroupPolicy\nmetadata: {{name: members, namespace: {namespace}}}\nspec: {spec}\n"
    );
    scene.apply(&format!("members-{namespace}"), &text);
}

fn group(scene: &mut Scene, id: &str, spec: &str) {
    let text = format!(
        "apiVersion: weft.dev/v1alpha1\nkind: SecurityGroup\nmetadata: {{name: {id}}}\nspec: {spec}\n"
    );
    scene.apply(id, &text);
}

fn scene() -> Scene {
    let mut scene = Scene::new();
    members(
        &mut scene,
        "shop",
        "{podSelector: {matchLabels: {app: db}}, securityGroups: {groupIds: [sg-db]}}",
    );
    members(
        &mut scene,
        "bank",
        "{podSelector: {matchLabels: {app: web}}, securityGroups: {groupIds: [sg-web]}}",
    );
    group(&mut scene, "sg-db", WEB_ONLY);
    group(
        &mut scene,
        "sg-web",
        "{outbound: [{protocol: all, cidr: 0.0.0.0/0}]}",
    );
    assert_eq!(scene.problems(), [] as [&str; 0]);
    scene
}

#[test]
fn a_pod_with_groups_may_do_what_they_allow_and_nothing_else() {
    let mut scene = scene();
    assert_eq!(scene.sources("shop/db", "TCP/80"), ["bank/web"]);
    assert!(scene.sources("shop/db", "TCP/82").is_empty());
    assert!(scene.sources("shop/db", "UDP/80").is_empty());
    assert_eq!(
        scene.denial("lab/odd", "shop/db", "TCP/80").unwrap(),
        "SecurityGroupPolicy shop/members isolates ingress"
    );
    assert!(scene.allows("shop/db", "203.0.113.9", "UDP/9"));
    assert!(scene.allows("lab/odd", "shop/web", "TCP/80"));
}

#[test]
fn what_groups_allow_network_policies_still_decide() {
    let mut scene = scene();
    scene.policy(
        "p",
        "shop",
        "{podSelector: {}, ingress: [{ports: [{port: 81}]}]}",
    );
    assert!(!scene.allows("bank/web", "shop/db", "TCP/80"));
    assert!(scene.allows("bank/web", "shop/db", "TCP/81"));
}

#[test]
fn a_pod_of_two_policies_has_the_groups_of_both() {
    let mut scene = scene();
    group(
        &mut scene,
        "sg-ssh",
        "{inbound: [{protocol: tcp, fromPort: 22, cidr: 10.0.0.5/32}, {protocol: icmp, cidr: 0.0.0.0/0}]}",
    );
    let text = "apiVersion: vpcresources.k8s.aws/v1beta1\nkind: SecurityGroupPolicy\nmetadata: {name: more, namespace: shop}\nspec: {podSelector: {}, securityGroups: {groupIds: [sg-ssh]}}\n";
    scene.apply("more", text);
    assert!(scene.allows("bank/web", "shop/db", "TCP/80"));
    assert_eq!(scene.sources("shop/db", "TCP/22"), ["lab/odd"]);
    assert!(scene.allows("203.0.113.9", "shop/db", "ICMP/0"));
}

#[test]
fn service_accounts_select_by_their_labels() {
    let mut scene = scene();
    members(
        &mut scene,
        "shop",
        "{serviceAccountSelector: {matchLabels: {role: robot}}, securityGroups: {groupIds: [sg-db]}}",
    );
    assert!(scene.allows("lab/odd", "shop/db", "TCP/80"));
    let account = |role: &str| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: sam, namespace: shop, labels: {{role: {role}}}}}\n"
        )
    };
    scene.apply("account", &account("robot"));
    let web = pod_text("shop/web", "app: web", "serviceAccountName: sam, ");
    scene.apply("shop/web", &web);
    assert!(!scene.allows("lab/odd", "shop/web", "TCP/80"));
    assert!(scene.allows("lab/odd", "shop/db", "TCP/80"));
    scene.apply("account", &account("human"));
    assert!(scene.allows("lab/odd", "shop/web", "TCP/80"));
}

#[test]
fn a_group_nobody_defines_allows_nothing_and_is_told() {
    let mut scene = scene();
    scene.store.remove("sg-db");
    assert!(scene.sources("shop/db", "TCP/80").is_empty());
    assert_eq!(
        scene.problems(),
        ["SecurityGroupPolicy shop/members: there is no SecurityGroup sg-db; it allows nothing"]
    );
}

#[test]
fn a_broken_rule_is_left_out_and_a_broken_policy_cuts_off() {
    let mut scene = Scene::new();
    members(
        &mut scene,
        "shop",
        "{podSelector: {}, securityGroups: {groupIds: [sg]}}",
    );
    group(
        &mut scene,
        "sg",
        "{inbound: [{protocol: tcp, fromPort: 9, toPort: 8, cidr: 0.0.0.0/0}, {protocol: udp, cidr: 0.0.0.0/0}]}",
    );
    assert!(!scene.allows("lab/odd", "shop/db", "TCP/9"));
    assert!(scene.allows("lab/odd", "shop/db", "UDP/9"));
    members(
        &mut scene,
        "bank",
        "{podSelector: {matchLabels: {app: web}}, securityGroups: {groupIds: []}}",
    );
    assert!(!scene.allows("lab/odd", "bank/vault", "UDP/9"));
    let problems = scene.problems();
    assert!(
        problems
            .iter()
            .any(|p| p.contains("spec.inbound[0].toPort: 8 is lower")),
        "{problems:?}"
    );
    assert!(
        problems
            .iter()
            .any(|p| p.contains("groupIds: must have at least one group"))
    );
}
