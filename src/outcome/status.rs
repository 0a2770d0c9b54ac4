//! The statuses that the API can report for a delivery, as types.
//!
//! Knows the tables of Infobip's "PIN: Get status" page; knows nothing of HTTP or the shape of answers. Promises to
//! keep a status that the tables don't list unchanged.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Declares an enum of statuses from rows of the vendor's table: the name on the wire, the description, and whether the
/// status is final if the answer doesn't say so. The last column is our [`Weight`]; the compiler requires it of every
/// row.
macro_rules! statuses {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $wire:literal, $description:literal, $is_final:literal, $weight:ident;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($variant,)* }

        impl $name {
            /// All of them, in the order of the vendor's table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The status' name on the wire.
            pub fn wire(self) -> &'static str {
                match self { $(Self::$variant => $wire,)* }
            }

            fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)* }
            }

            fn is_final(self) -> bool {
                match self { $(Self::$variant => $is_final,)* }
            }

            fn weight(self) -> Weight {
                match self { $(Self::$variant => Weight::$weight,)* }
            }

            fn from_wire(text: &str) -> Option<Self> {
                match text { $($wire => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

statuses! {
    /// The status of an SMS, by the vendor's "SMS status list".
    SmsStatus {
        Accepted = "MESSAGE_ACCEPTED", "Message accepted", true, Accepted;
        NotSent = "MESSAGE_NOT_SENT", "Message not sent", false, Pending;
        NotDelivered = "MESSAGE_NOT_DELIVERED", "Message sent, not delivered", true, Failed;
        WaitingDelivery = "MESSAGE_WAITING_DELIVERY", "Message sent, waiting for delivery", false, Pending;
        Delivered = "MESSAGE_DELIVERED", "Message sent and delivered", true, Delivered;
        NetworkNotAllowed = "MESSAGE_NETWORK_NOT_ALLOWED", "Message not sent, network not allowed", true, Failed;
        NetworkNotAvailable = "MESSAGE_NETWORK_NOT_AVAILABLE", "Message not sent, bulk or gateway offline", true, Failed;
        InvalidDestinationAddress = "MESSAGE_INVALID_DESTINATION_ADDRESS", "Message not sent, invalid destination address", true, Failed;
        DeliveryUnknown = "MESSAGE_DELIVERY_UNKNOWN", "Message delivery unknown", true, Unknown;
        InvalidSourceAddress = "INVALID_SOURCE_ADDRESS", "Message not sent, invalid source address", true, Failed;
        NotEnoughCredits = "NOT_ENOUGH_CREDITS", "Message not sent, not enough credits", true, Failed;
        Rejected = "MESSAGE_REJECTED", "Message rejected", true, Failed;
        Expired = "MESSAGE_EXPIRED", "Message expired", true, Failed;
        SystemError = "SYSTEM_ERROR", "System error", true, Failed;
    }
}

statuses! {
    /// The status of a call, by the vendor's "Call status list". That list does not say which statuses are final, so
    /// these values are our own; they apply only if the answer has no `finalStatus`.
    CallStatus {
        BadRequest = "BAD_REQUEST", "Provided request does not meet required conditions.", true, Failed;
        Processing = "PROCESSING", "Request is currently being processed.", false, Pending;
        Processed = "PROCESSED", "Request is successfully processed and answered by human.", true, Delivered;
        AnsweredMachine = "ANSWERED_MACHINE", "Request is successfully processed and answered by machine.", true, Delivered;
        Error = "ERROR", "System error occurred during processing.", true, Failed;
        NotEnoughCredits = "ERROR_NOT_ENOUGH_CREDITS", "Not enough credits on account balance to pay for the call.", true, Failed;
        NetworkNotAvailable = "ERROR_NETWORK_NOT_AVAILABLE", "We could not find network for given destination address.", true, Failed;
        RouteNotAvailable = "ERROR_ROUTE_NOT_AVAILABLE", "Route for TTS call is not set up on account.", true, Failed;
        UserBusy = "ERROR_USER_BUSY", "User was busy during call attempt(s).", true, Failed;
        NoAnswer = "ERROR_NO_ANSWER", "User did not answer call(s).", true, Failed;
        Undefined = "UNDEFINED", "Request is undefined.", false, Unknown;
    }
}

/// The status of one delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Status {
    /// An SMS status that the vendor documents.
    Sms(SmsStatus),
    /// A call status that the vendor documents.
    Call(CallStatus),
    /// Any other status, as it came.
    Unknown(Arc<str>),
    /// A status of another API than Infobip's 2FA, with what `[api.answer]` says about it.
    Other { name: Arc<str>, weight: Weight },
}

/// What a delivery's status says about whether the PIN reached somebody. Of several deliveries the one with the
/// greatest weight decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weight {
    /// It did not arrive.
    Failed,
    /// It is still on its way.
    Pending,
    /// Nobody can know whether it arrived.
    Unknown,
    /// The operator accepted it; nobody can know more.
    Accepted,
    /// It arrived.
    Delivered,
}

impl Status {
    /// The status with this name on the wire.
    pub fn from_wire(text: &str) -> Self {
        if let Some(sms) = SmsStatus::from_wire(text) {
            Self::Sms(sms)
        } else if let Some(call) = CallStatus::from_wire(text) {
            Self::Call(call)
        } else {
            Self::Unknown(text.into())
        }
    }

    /// The status' name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Sms(sms) => sms.wire(),
            Self::Call(call) => call.wire(),
            Self::Unknown(name) | Self::Other { name, .. } => name,
        }
    }

    /// The vendor's description; `None` for a status that the vendor doesn't document.
    pub fn description(&self) -> Option<&'static str> {
        match self {
            Self::Sms(sms) => Some(sms.description()),
            Self::Call(call) => Some(call.description()),
            Self::Unknown(_) | Self::Other { .. } => None,
        }
    }

    /// Whether the status is final if the answer has no `finalStatus`. An undocumented status is not.
    pub fn is_final_by_table(&self) -> bool {
        match self {
            Self::Sms(sms) => sms.is_final(),
            Self::Call(call) => call.is_final(),
            Self::Unknown(_) | Self::Other { .. } => false,
        }
    }

    /// What the status says about whether the PIN arrived.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Sms(sms) => sms.weight(),
            Self::Call(call) => call.weight(),
            Self::Unknown(_) => Weight::Unknown,
            Self::Other { weight, .. } => *weight,
        }
    }

    /// Whether a PIN was delivered if this is the final status of its deciding delivery; `None` if nobody can know. A
    /// status that says "on its way" does not mean failure, even if the API calls it final; one that says "not sent" does.
    pub fn delivered(&self) -> Option<bool> {
        match self.weight() {
            _ if matches!(self, Self::Sms(SmsStatus::NotSent)) => Some(false),
            Weight::Delivered => Some(true),
            Weight::Accepted | Weight::Unknown | Weight::Pending => None,
            Weight::Failed => Some(false),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every status of both tables.
    fn all() -> impl Iterator<Item = Status> {
        let sms = SmsStatus::ALL.iter().copied().map(Status::Sms);
        sms.chain(CallStatus::ALL.iter().copied().map(Status::Call))
    }

    #[test]
    fn all_14_sms_and_11_call_statuses_are_read_back_from_their_names() {
        assert_eq!((SmsStatus::ALL.len(), CallStatus::ALL.len()), (14, 11));
        for status in all() {
            assert_eq!(Status::from_wire(status.as_str()), status);
            assert!(status.description().is_some());
        }
    }

    #[test]
    fn only_four_documented_statuses_are_not_final_by_table() {
        let open: Vec<_> = all().filter(|s| !s.is_final_by_table()).map(|s| s.to_string()).collect();
        assert_eq!(open, ["MESSAGE_NOT_SENT", "MESSAGE_WAITING_DELIVERY", "PROCESSING", "UNDEFINED"]);
    }

    #[test]
    fn three_statuses_mean_delivered_and_five_leave_it_unknown() {
        let with =
            |value| all().filter(|s| s.delivered() == value).map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(with(Some(true)), ["MESSAGE_DELIVERED", "PROCESSED", "ANSWERED_MACHINE"]);
        let unknown = [
            "MESSAGE_ACCEPTED",
            "MESSAGE_WAITING_DELIVERY",
            "MESSAGE_DELIVERY_UNKNOWN",
            "PROCESSING",
            "UNDEFINED",
        ];
        assert_eq!(with(None), unknown);
        let pending = Status::Other { name: "queued".into(), weight: Weight::Pending };
        assert_eq!(pending.delivered(), None, "of another API too");
    }

    #[test]
    fn an_unknown_status_is_kept_unchanged() {
        let status = Status::from_wire("MESSAGE_TELEPORTED");
        assert_eq!(status.as_str(), "MESSAGE_TELEPORTED");
        assert_eq!((status.is_final_by_table(), status.delivered()), (false, None));
    }
}
