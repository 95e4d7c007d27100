//! Which addresses media may be downloaded from.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Where media may be downloaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Anywhere: who asks could do it too.
    Anywhere,
    /// Only from addresses of the public internet, lest a request reads what only this machine and its neighbours can reach; and from
    /// these hosts.
    Public {
        /// `host`, or `host:port`.
        and: Vec<String>,
    },
}

/// An address that is out of reach. The same for all, so that nothing is learnt of what is there.
#[derive(Debug)]
pub(crate) struct OutOfReach;

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this address may not be reached from here")
    }
}

impl Error for OutOfReach {}

impl OutOfReach {
    /// Whether an error is one at its bottom.
    pub fn is_in(error: &(dyn Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause.filter(|error| !error.is::<Self>()) {
            cause = error.source();
        }
        cause.is_some()
    }
}

impl Reach {
    /// Refuses a URL whose host is out of reach as it is written. What a name stands for is for [`Resolve`] to judge.
    pub(crate) fn check(&self, url: &Url) -> Result<(), OutOfReach> {
        let (Self::Public { .. }, Some(host)) = (self, url.host()) else { return Ok(()) };
        let port = url.port_or_known_default().unwrap_or_default();
        match self.listed(&host.to_string()) {
            Some(ports) if ports.iter().any(|listed| listed.is_none_or(|listed| listed == port)) => Ok(()),
            Some(_) => Err(OutOfReach),
            None => match host {
                Host::Ipv4(address) if !is_public(address.into()) => Err(OutOfReach),
                Host::Ipv6(address) if !is_public(address.into()) => Err(OutOfReach),
                _ => Ok(()),
            },
        }
    }

    /// The ports of a host that is allowed by name, None for any; nothing when it is not.
    fn listed(&self, host: &str) -> Option<Vec<Option<u16>>> {
        let Self::Public { and } = self else { return None };
        let port = |entry: &String| {
            let rest = entry.get(..host.len()).filter(|name| name.eq_ignore_ascii_case(host)).map(|_| &entry[host.len()..])?;
            match rest.strip_prefix(':') {
                Some(port) => port.parse().ok().map(Some),
                None => rest.is_empty().then_some(None),
            }
        };
        let ports: Vec<_> = and.iter().filter_map(port).collect();
        (!ports.is_empty()).then_some(ports)
    }
}

impl Resolve for Reach {
    /// The addresses of a name, all of which have to be within reach: they are the ones that are dialled.
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.clone();
        Box::pin(async move {
            let name = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            let all = matches!(reach, Self::Anywhere) || reach.listed(name).is_some();
            if !all && found.iter().any(|address| !is_public(address.ip())) {
                return Err(Box::new(OutOfReach) as Box<dyn Error + Send + Sync>);
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet (IANA's registries of special-purpose addresses). Those that carry an IPv4 address
/// inside are not: it may be any.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    let reserved = matches!(octets, [0 | 10 | 127 | 224..=255, ..]);
    let local = matches!(octets, [100, 64..=127, ..] | [169, 254, ..] | [172, 16..=31, ..] | [192, 168, ..] | [198, 18 | 19, ..]);
    let assigned = matches!(octets, [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 51, 100, _] | [203, 0, 113, _]);
    !(reserved || local || assigned)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_r3_what_is_no_public_address_is_out_of_reach_however_it_is_spelled() {
        let reach = Reach::Public { and: vec!["192.168.7.7:8000".into(), "images.example".into(), "[::1]:9".into()] };
        let cases = [
            ("http://8.8.8.8/a.png", true),
            ("https://[2606:4700::1111]/a.png", true),
            ("https://example.com/a.png", true),
            ("http://192.168.7.7:8000/a.png", true),
            ("http://IMAGES.example:81/a.png", true),
            ("http://[::1]:9/", true),
            ("http://192.168.7.7/a.png", false),
            ("http://[::1]/", false),
            ("http://127.0.0.1/", false),
            ("http://127.1/", false),
            ("http://2130706433/", false),
            ("http://0x7f000001/", false),
            ("http://0177.0.0.1/", false),
            ("http://127.0.0.1./", false),
            ("http://%31%32%37.0.0.1/", false),
            ("http://１２７.0.0.1/", false),
            ("http://①②⑦.0.0.1/", false),
            ("http://user@127.0.0.1/", false),
            ("http://example.com\\@127.0.0.1/", true),
            ("http://0/", false),
            ("http://10.0.0.1/", false),
            ("http://100.64.0.1/", false),
            ("http://169.254.169.254/latest/meta-data", false),
            ("http://172.31.0.1/", false),
            ("http://192.0.2.1/", false),
            ("http://198.19.0.1/", false),
            ("http://224.0.0.1/", false),
            ("http://255.255.255.255/", false),
            ("http://[::]/", false),
            ("http://[::ffff:127.0.0.1]/", false),
            ("http://[::127.0.0.1]/", false),
            ("http://[64:ff9b::7f00:1]/", false),
            ("http://[2002:7f00:1::]/", false),
            ("http://[2001:0:1::1]/", false),
            ("http://[fe80::1]/", false),
            ("http://[fd00::1]/", false),
            ("http://[ff02::1]/", false),
        ];
        for (url, within) in cases {
            let parsed = Url::parse(url).unwrap();
            assert_eq!(reach.check(&parsed).is_ok(), within, "{url} is {parsed}");
            assert!(Reach::Anywhere.check(&parsed).is_ok(), "{url}");
        }
    }

    #[tokio::test]
    async fn r4_names_of_addresses_out_of_reach_are_not_resolved() {
        let resolve = |reach: Reach| async move { reach.resolve("localhost".parse().unwrap()).await.map(Iterator::count) };
        let refused = resolve(Reach::Public { and: Vec::new() }).await.expect_err("it is a loopback address");
        assert!(OutOfReach::is_in(refused.as_ref()));
        assert!(resolve(Reach::Public { and: vec!["localhost:80".into()] }).await.unwrap() > 0);
        assert!(resolve(Reach::Anywhere).await.unwrap() > 0);
    }
}
