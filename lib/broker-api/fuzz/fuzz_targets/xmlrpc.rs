//! Any bytes as a request and as an answer: no panic, and what was understood is written so that it reads the same.
#![no_main]

use broker_api::xmlrpc::{
    MethodResponse, decode_call, decode_response, encode_call, encode_fault, encode_response,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    if let Ok(call) = decode_call(document) {
        // Compared as text: NaN is not equal to itself.
        let once = encode_call(&call.name, &call.params);
        let again = decode_call(&once).expect("what we write can be read");
        assert_eq!(once, encode_call(&again.name, &again.params));
    }
    match decode_response(document) {
        Ok(MethodResponse::Value(value)) => {
            assert!(decode_response(&encode_response(&value)).is_ok());
        }
        Ok(MethodResponse::Fault(fault)) => {
            assert!(decode_response(&encode_fault(&fault)).is_ok());
        }
        Err(_) => {}
    }
});
