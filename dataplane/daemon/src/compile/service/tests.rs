//! Which services are taken, and how they come into force.

use weft_api::service::{Backend, FrontendKind};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(name: &str, address: &str, backends: &[&str]) -> Service {
    let backend = |it: &&str| Backend {
        address: ip(it),
        port: 8080,
        pod: None,
        terminating: false,
    };
    Service {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        algorithm: ApiAlgorithm::Maglev,
        affinity_seconds: None,
        backends: backends.iter().map(backend).collect(),
        frontends: vec![Frontend {
            address: Some(ip(address)),
            ipv6: false,
            protocol: 6,
            port: 80,
            kind: FrontendKind::ClusterIp,
            port_name: String::new(),
            keeps_source: false,
            direct: false,
            sources: None,
            backends: (0..backends.len() as u32).collect(),
            inside_backends: None,
            drops: false,
        }],
    }
}

fn backends(builder: &mut ServiceBuilder, address: &str) -> Option<usize> {
    let tables = builder.build();
    let frontend = tables.get(&FrontendKey {
        address: ip(address),
        protocol: 6,
        port: 80,
    })?;
    Some(frontend.backends().len())
}

#[test]
fn services_come_change_and_go_by_name() {
    let (mut services, mut builder) = (Services::default(), ServiceBuilder::default());
    let web = Arc::new(service("web", "10.96.0.1", &["10.1.0.1", "10.1.0.2"]));
    let api = Arc::new(service("api", "10.96.0.2", &["10.1.0.3"]));
    services.apply(&[&api, &web], &mut builder);
    assert_eq!(backends(&mut builder, "10.96.0.1"), Some(2));
    let ids: Vec<ServiceId> = services.iter().map(|(id, _)| id).collect();
    assert_eq!(services.name(ids[1]), Some(("shop", "web")));
    let fewer = Arc::new(service("web", "10.96.0.1", &["10.1.0.1"]));
    services.apply(&[&api, &fewer], &mut builder);
    assert_eq!(backends(&mut builder, "10.96.0.1"), Some(1));
    assert_eq!(services.iter().map(|(id, _)| id).collect::<Vec<_>>(), ids);
    // Its address goes to another at the same moment.
    let next = Arc::new(service("next", "10.96.0.1", &[]));
    services.apply(&[&api, &next], &mut builder);
    assert_eq!(backends(&mut builder, "10.96.0.1"), Some(0));
    assert_eq!(services.name(ids[1]), None);
    services.apply(&[], &mut builder);
    assert_eq!(backends(&mut builder, "10.96.0.2"), None);
}

#[test]
fn a_frontend_without_address_is_a_port_of_the_node() {
    let mut of_node = service("web", "10.96.0.1", &["10.1.0.1"]);
    of_node.frontends[0].address = None;
    assert_eq!(check(&of_node), Ok(()));
    assert_eq!(spec(&of_node).frontends[0].key.address, ip("0.0.0.0"));
}

#[test]
fn a_service_that_contradicts_itself_is_refused_by_name() {
    let good = service("web", "10.96.0.1", &["10.1.0.1"]);
    let bad = |change: &dyn Fn(&mut Service)| {
        let mut service = good.clone();
        change(&mut service);
        check(&service).unwrap_err()
    };
    let refused = [
        bad(&|it| it.frontends[0].backends = vec![1]),
        bad(&|it| it.backends[0].address = ip("fd00::1")),
        bad(&|it| it.backends[0].port = 0),
        bad(&|it| it.frontends[0].port = 0),
        bad(&|it| it.frontends[0].protocol = 1),
        bad(&|it| it.frontends[0].address = Some(ip("0.0.0.0"))),
        bad(&|it| it.frontends.push(it.frontends[0].clone())),
    ];
    for message in refused {
        assert!(message.starts_with("service shop/web: "), "{message}");
    }
    let (mut services, mut builder) = (Services::default(), ServiceBuilder::default());
    let mut broken = good.clone();
    broken.frontends[0].backends = vec![9];
    services.apply(&[&Arc::new(broken)], &mut builder);
    assert_eq!(backends(&mut builder, "10.96.0.1"), None);
}
