//! The librdkafka calls for which the `rdkafka` crate has no safe form. The only file with `unsafe` code.
#![allow(unsafe_code)]

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

/// A topic's id: it tells a topic that was deleted and created again from the one before (KIP-516).
pub type TopicId = [u8; 16];

/// Why topics or a group could not be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// The request failed as a whole.
    #[error("the brokers did not describe the topics: {0}")]
    Request(String),
    /// The group could not be described.
    #[error("the brokers did not describe group `{group}`: {reason}")]
    Group {
        /// The group.
        group: String,
        /// librdkafka's words.
        reason: String,
    },
    /// One topic could not be described.
    #[error("the brokers did not describe topic `{topic}`: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// librdkafka's words.
        reason: String,
    },
    /// A name with a NUL byte.
    #[error("the name `{0}` holds a NUL byte")]
    Name(String),
}

/// Waits up to `timeout` for all queued records to be delivered, and lets librdkafka send at once while it waits.
///
/// `BaseProducer::flush` polls in steps of 100 ms; this form returns within a millisecond of the last delivery report
/// when it is called in a loop with a poll that serves the reports.
pub(crate) fn flush<C: ClientContext>(client: &Client<C>, timeout: Duration) {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is valid for as long as `client` is borrowed, and rd_kafka_flush is thread-safe. Its result
    // (done or timed out) is not used: the caller looks at the queue's length.
    unsafe {
        sys::rd_kafka_flush(client.native_ptr(), millis);
    }
}

/// A native object and the function that frees it.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the constructor that pairs with this destructor, and is freed once.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// The ids of the topics, by name.
pub(crate) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<BTreeMap<String, TopicId>, DescribeError> {
    let names = topics
        .iter()
        .map(|name| CString::new(*name).map_err(|_| DescribeError::Name((*name).to_owned())))
        .collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `client` keeps the native client alive during the call; every object made here is freed by its guard, in
    // reverse order, after the last use of what it lends; `names` outlives the collection, which copies them anyway.
    unsafe {
        let rk = client.native_ptr();
        let collection = Owned(
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            sys::rd_kafka_TopicCollection_destroy,
        );
        let options = Owned(
            sys::rd_kafka_AdminOptions_new(
                rk,
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            sys::rd_kafka_AdminOptions_destroy,
        );
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, ptr::null_mut(), 0);
        let queue = Owned(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy);
        sys::rd_kafka_DescribeTopics(rk, collection.0, options.0, queue.0);
        let event = Owned(
            sys::rd_kafka_queue_poll(queue.0, millis),
            sys::rd_kafka_event_destroy,
        );
        if event.0.is_null() {
            return Err(DescribeError::Request("timed out".to_owned()));
        }
        if sys::rd_kafka_event_error(event.0)
            != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            let reason = sys::rd_kafka_event_error_string(event.0);
            return Err(DescribeError::Request(text(reason)));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(DescribeError::Request("another event came".to_owned()));
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        (0..count)
            .map(|i| described(*descriptions.add(i)))
            .collect()
    }
}

/// Name and id of one described topic.
///
/// # Safety
/// `description` must be valid, which it is as long as the event that lends it.
unsafe fn described(
    description: *const sys::rd_kafka_TopicDescription_t,
) -> Result<(String, TopicId), DescribeError> {
    // SAFETY: by the contract above; the id and the strings are read before the event is freed.
    unsafe {
        let topic = text(sys::rd_kafka_TopicDescription_name(description));
        let error = sys::rd_kafka_TopicDescription_error(description);
        if !error.is_null()
            && sys::rd_kafka_error_code(error)
                != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            let reason = text(sys::rd_kafka_error_string(error));
            return Err(DescribeError::Topic { topic, reason });
        }
        let uuid = sys::rd_kafka_TopicDescription_topic_id(description);
        let high = sys::rd_kafka_Uuid_most_significant_bits(uuid).to_be_bytes();
        let low = sys::rd_kafka_Uuid_least_significant_bits(uuid).to_be_bytes();
        let mut id = TopicId::default();
        for (to, from) in id.iter_mut().zip(high.into_iter().chain(low)) {
            *to = from;
        }
        Ok((topic, id))
    }
}

/// The id that the coordinator gave to this consumer's membership; empty while it has none.
pub(super) fn member_id<C: ClientContext>(client: &Client<C>) -> String {
    // SAFETY: the client lives during the call; the copy that it returns is freed once, after its last use.
    unsafe {
        let id = sys::rd_kafka_memberid(client.native_ptr());
        let copy = text(id);
        if !id.is_null() {
            sys::rd_kafka_mem_free(client.native_ptr(), id.cast());
        }
        copy
    }
}

/// A member as the group's coordinator tells of it.
pub(super) struct RawMember {
    /// The id that the coordinator gave to its membership.
    pub(super) id: String,
    /// The host it connects from.
    pub(super) host: String,
    /// What is assigned to it, as the members write that.
    pub(super) assignment: Vec<u8>,
}

/// State and members of a group; none when no broker that answers knows the group.
///
/// The admin request for the same ends the process by a failed assertion when its answer comes late (librdkafka #4605), and
/// that is when brokers are frozen. This older call asks each broker, and gets over that; an answer of some is taken.
pub(super) fn group<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Option<(String, Vec<RawMember>)>, DescribeError> {
    let name = CString::new(group).map_err(|_| DescribeError::Name(group.to_owned()))?;
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut list: *const sys::rd_kafka_group_list = ptr::null();
    // SAFETY: the client and the name live during the call; what it returns is copied before the guard frees it.
    unsafe {
        let error =
            sys::rd_kafka_list_groups(client.native_ptr(), name.as_ptr(), &raw mut list, millis);
        let list = List(list);
        if list.0.is_null() {
            return Err(DescribeError::Group {
                group: group.to_owned(),
                reason: text(sys::rd_kafka_err2str(error)),
            });
        }
        let count = usize::try_from((*list.0).group_cnt).unwrap_or_default();
        if count == 0 {
            return Ok(None);
        }
        let found = &*(*list.0).groups;
        if found.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(DescribeError::Group {
                group: group.to_owned(),
                reason: text(sys::rd_kafka_err2str(found.err)),
            });
        }
        let members = (0..usize::try_from(found.member_cnt).unwrap_or_default())
            .map(|i| raw_member(&*found.members.add(i)))
            .collect();
        Ok(Some((text(found.state), members)))
    }
}

/// A list of groups, freed when dropped.
struct List(*const sys::rd_kafka_group_list);

impl Drop for List {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the list came from rd_kafka_list_groups and is freed once.
            unsafe { sys::rd_kafka_group_list_destroy(self.0) }
        }
    }
}

/// Copies one member.
///
/// # Safety
/// The member's pointers must be valid, which they are as long as its list.
unsafe fn raw_member(member: &sys::rd_kafka_group_member_info) -> RawMember {
    let size = usize::try_from(member.member_assignment_size).unwrap_or_default();
    // SAFETY: by the contract above; a size above 0 comes with as many bytes.
    unsafe {
        RawMember {
            id: text(member.member_id),
            host: text(member.client_host),
            assignment: if member.member_assignment.is_null() || size == 0 {
                Vec::new()
            } else {
                std::slice::from_raw_parts(member.member_assignment.cast::<u8>(), size).to_vec()
            },
        }
    }
}

/// Copies a C string; empty when there is none.
///
/// # Safety
/// `pointer` must be null or a valid C string.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: by the contract above.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}
