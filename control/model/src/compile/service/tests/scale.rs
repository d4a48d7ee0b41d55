//! Many services: that all of them are there, and that one change is one change.

use std::sync::Arc;

use super::*;

const SERVICES: usize = 10_000;

/// Services of one file, so that reading them is not what the test is about.
fn cluster(changed: usize, port: u16) -> String {
    let mut text = String::from("{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n");
    for n in 0..SERVICES {
        let (high, low) = (n / 256, n % 256);
        let port = if n == changed { port } else { 8080 };
        text += &format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {{\"name\": \"s{n}\"}}, \"spec\": \
             {{\"clusterIP\": \"10.96.{high}.{low}\", \"ports\": [{{\"port\": 80}}]}}}},\n\
             {{\"apiVersion\": \"discovery.k8s.io/v1\", \"kind\": \"EndpointSlice\", \"metadata\": {{\"name\": \"s{n}\", \
             \"labels\": {{\"kubernetes.io/service-name\": \"s{n}\"}}}}, \"addressType\": \"IPv4\", \"ports\": \
             [{{\"port\": {port}}}], \"endpoints\": [{{\"addresses\": [\"10.1.{high}.{low}\"]}}, \
             {{\"addresses\": [\"10.2.{high}.{low}\"]}}]}},\n"
        );
    }
    text.truncate(text.len() - 2);
    text + "]}"
}

#[test]
fn of_ten_thousand_services_one_changed_endpoint_changes_one() {
    let mut scene = Scene::new();
    scene.apply("cluster.json", &cluster(0, 8080));
    let before = scene.compiled();
    assert_eq!(before.problems, [] as [&str; 0]);
    assert_eq!(before.desired.services.services.len(), SERVICES);
    scene.apply("cluster.json", &cluster(4321, 9090));
    let after = scene.compiled();
    let pairs = before.desired.services.services.iter();
    let pairs = pairs.zip(&after.desired.services.services);
    let changed: Vec<_> = pairs.filter(|(old, new)| !Arc::ptr_eq(old, new)).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].1.name, "s4321");
}
