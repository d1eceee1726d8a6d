//! The endpoints that are told apart: the API's, without what stands in for a name.

/// `*` is one part of a path, whatever it is. The last one is everything else.
pub(super) const ENDPOINTS: [&str; 17] = [
    "GET /v1/job",
    "GET /v1/agents/data/*",
    "POST /v1/agents/data/*",
    "POST /v1/agents/queues",
    "POST /v1/agents/images",
    "POST /v1/agents/provision_logs/*",
    "GET /v1/job/*/attachments",
    "POST /v1/job/*/events",
    "GET /v1/result/*",
    "POST /v1/result/*",
    "POST /v1/result/*/log/output",
    "POST /v1/result/*/log/serial",
    "POST /v1/result/*/output",
    "POST /v1/result/*/serial_output",
    "POST /v1/result/*/artifact",
    "POST /v1/oauth2/refresh",
    "other",
];

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint(usize);

impl Endpoint {
    /// Which one a request goes to.
    #[must_use]
    pub fn of(method: &str, path: &str) -> Endpoint {
        let path = path.split('?').next().unwrap_or_default();
        let found = ENDPOINTS.iter().position(|endpoint| {
            let (wanted, pattern) = endpoint.split_once(' ').unwrap_or_default();
            let mut parts = path.split('/');
            let mut wanted_parts = pattern.split('/');
            let fits =
                |part: &str| matches!(wanted_parts.next(), Some(one) if one == "*" || one == part);
            wanted == method && parts.by_ref().all(fits) && wanted_parts.next().is_none()
        });
        Endpoint(found.unwrap_or(ENDPOINTS.len() - 1))
    }

    pub(super) fn index(self) -> usize {
        self.0
    }

    pub(super) fn is_job(self) -> bool {
        self.0 == 0
    }

    /// Whether artifacts are sent to it.
    #[must_use]
    pub fn is_artifact(self) -> bool {
        ENDPOINTS.get(self.0) == Some(&"POST /v1/result/*/artifact")
    }

    /// Whether the server answers there as somebody else answered it.
    pub(super) fn is_relayed(self) -> bool {
        ENDPOINTS.get(self.0) == Some(&"POST /v1/job/*/events")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_to_an_endpoint() {
        let name = |method, path| ENDPOINTS[Endpoint::of(method, path).index()];
        assert_eq!(name("GET", "/v1/job?queue=a/b&queue=c"), "GET /v1/job");
        assert!(Endpoint::of("GET", "/v1/job?queue=a").is_job());
        assert_eq!(name("GET", "/v1/result/x"), "GET /v1/result/*");
        assert_eq!(name("POST", "/v1/result/x"), "POST /v1/result/*");
        assert_eq!(
            name("POST", "/v1/result/x/log/serial"),
            "POST /v1/result/*/log/serial"
        );
        assert!(Endpoint::of("POST", "/v1/result/x/artifact").is_artifact());
        assert!(Endpoint::of("POST", "/v1/job/x/events").is_relayed());
        for (method, path) in [
            ("PUT", "/v1/job"),
            ("GET", "/v1/job/"),
            ("GET", "/v1"),
            ("GET", ""),
            ("POST", "/v1/result/x/log/output/more"),
        ] {
            assert_eq!(name(method, path), "other", "{method} {path}");
        }
    }
}
