//! Memory of the workers' connections, held from one dataplane to the next.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use weft_api::envelope::{ApiError, ErrorKind};
use weft_xsk::Region;

use crate::protocol::{FLOWS_BYTES_MAX, FlowsRequest, WORKERS_MAX};

/// The regions of one number of workers and one size.
#[derive(Debug, Default)]
pub struct Flows {
    workers: u16,
    bytes: u64,
    regions: BTreeMap<u16, Rc<OwnedFd>>,
}

impl Flows {
    /// The region asked for, and whether it was there before.
    ///
    /// # Errors
    /// BadRequest beyond a limit, Failed with what the kernel said.
    pub fn get(&mut self, request: FlowsRequest) -> Result<(Rc<OwnedFd>, bool), ApiError> {
        check(request)?;
        if (self.workers, self.bytes) != (request.workers, request.bytes) {
            *self = Self {
                workers: request.workers,
                bytes: request.bytes,
                regions: BTreeMap::new(),
            };
        }
        if let Some(region) = self.regions.get(&request.worker)
            && !request.fresh
        {
            return Ok((Rc::clone(region), true));
        }
        // Checked to be at most 1 GiB.
        let made = Region::create_memfd(request.bytes as usize).map_err(|error| {
            let worker = request.worker;
            let message = format!("memory for the connections of worker {worker}: {error}");
            ApiError::new(ErrorKind::Failed, message)
        })?;
        let made = Rc::new(made);
        self.regions.insert(request.worker, Rc::clone(&made));
        Ok((made, false))
    }
}

fn check(request: FlowsRequest) -> Result<(), ApiError> {
    let FlowsRequest {
        worker,
        workers,
        bytes,
        ..
    } = request;
    let message = if worker >= workers || workers > WORKERS_MAX {
        format!("worker {worker} of {workers}; {WORKERS_MAX} workers are the most")
    } else if bytes == 0 || bytes > FLOWS_BYTES_MAX {
        format!("{bytes} bytes for connections; 1 to {FLOWS_BYTES_MAX} are possible")
    } else {
        return Ok(());
    };
    Err(ApiError::new(ErrorKind::BadRequest, message))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const REQUEST: FlowsRequest = FlowsRequest {
        worker: 0,
        workers: 2,
        bytes: 4096,
        fresh: false,
    };

    /// Leaves `mark` in the region and says what was there, and whether it was kept.
    fn mark(flows: &mut Flows, request: FlowsRequest, mark: u32) -> (u32, bool) {
        let (fd, kept) = flows.get(request).unwrap();
        let mut region = Region::own_memfd(fd.as_fd(), request.bytes as usize).unwrap();
        (std::mem::replace(&mut region[0], mark), kept)
    }

    #[test]
    fn each_worker_finds_its_own_again() {
        let mut flows = Flows::default();
        let other = FlowsRequest {
            worker: 1,
            ..REQUEST
        };
        assert_eq!(mark(&mut flows, REQUEST, 7), (0, false));
        assert_eq!(mark(&mut flows, other, 8), (0, false));
        assert_eq!(mark(&mut flows, REQUEST, 9), (7, true));
        assert_eq!(mark(&mut flows, other, 9), (8, true));
    }

    #[test]
    fn what_is_of_no_use_is_replaced_alone() {
        let mut flows = Flows::default();
        let other = FlowsRequest {
            worker: 1,
            ..REQUEST
        };
        mark(&mut flows, REQUEST, 7);
        mark(&mut flows, other, 8);
        let fresh = FlowsRequest {
            fresh: true,
            ..REQUEST
        };
        assert_eq!(mark(&mut flows, fresh, 5), (0, false));
        assert_eq!(mark(&mut flows, REQUEST, 5), (5, true));
        assert_eq!(mark(&mut flows, other, 8), (8, true));
    }

    #[test]
    fn another_number_of_workers_or_size_begins_anew() {
        let mut flows = Flows::default();
        let more = FlowsRequest {
            workers: 3,
            ..REQUEST
        };
        let larger = FlowsRequest {
            bytes: 8192,
            ..more
        };
        for request in [REQUEST, more, larger, REQUEST] {
            assert_eq!(mark(&mut flows, request, 7), (0, false));
        }
    }

    #[test]
    fn limits_are_named() {
        let mut flows = Flows::default();
        for (worker, workers, bytes, word) in [
            (2, 2, 4096, "worker 2 of 2"),
            (0, 0, 4096, "worker 0 of 0"),
            (0, WORKERS_MAX + 1, 4096, "1024"),
            (0, 1, 0, "0 bytes"),
            (0, 1, FLOWS_BYTES_MAX + 1, "1073741824"),
        ] {
            let request = FlowsRequest {
                worker,
                workers,
                bytes,
                fresh: false,
            };
            let error = flows.get(request).unwrap_err();
            assert_eq!(error.kind, ErrorKind::BadRequest);
            assert!(error.message.contains(word), "{error}");
        }
    }
}
