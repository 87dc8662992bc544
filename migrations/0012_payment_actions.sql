-- Payments on a phone, with their own text on the bill and a way back to the shop; keys of staff requests; pace of polls.

-- mobile_page: WeChat Pay's h5 and Alipay's wap. NOT VALID, since every existing row satisfies the narrower check.
ALTER TABLE payments DROP CONSTRAINT payments_scene_check;
ALTER TABLE payments ADD CONSTRAINT payments_flow_check
    CHECK (flow IN ('page', 'mobile_page', 'app', 'qr', 'jsapi', 'none')) NOT VALID;
ALTER TABLE payments
    ADD COLUMN subject        text CHECK (length(subject) BETWEEN 1 AND 127),
    ADD COLUMN return_url     text CHECK (length(return_url) BETWEEN 1 AND 256),
    ADD COLUMN payer_ip       text CHECK (length(payer_ip) BETWEEN 2 AND 45),
    ADD COLUMN provider_error text CHECK (length(provider_error) BETWEEN 1 AND 500);

CREATE TABLE staff_requests (
    actor           text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    idempotency_key text NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    digest          bytea NOT NULL CHECK (length(digest) = 32),
    created_at      timestamptz NOT NULL,
    status          smallint NOT NULL CHECK (status BETWEEN 200 AND 299),
    content_type    text NOT NULL,
    location        text,
    body            bytea NOT NULL,
    PRIMARY KEY (actor, idempotency_key)
);
CREATE INDEX staff_requests_by_age ON staff_requests (created_at);

ALTER TABLE shipments ADD COLUMN polled_at timestamptz;
COMMENT ON COLUMN shipments.polled_at IS 'When the carrier was last polled: some lock numbers that are polled too often';

COMMENT ON COLUMN payments.flow IS 'How the customer is led to the provider: page, mobile_page, app, qr, jsapi';
COMMENT ON COLUMN payments.subject IS 'Text on the customer''s bill; fixed, since a provider refuses the same payment with another';
COMMENT ON COLUMN payments.return_url IS 'Address to which the provider''s page sends the customer back';
COMMENT ON COLUMN payments.payer_ip IS 'The customer''s network address, which WeChat Pay requires for mobile_page';
COMMENT ON COLUMN payments.provider_error IS 'The provider''s own words of a refusal, for staff only';
COMMENT ON TABLE staff_requests IS 'Answers to staff requests with an Idempotency-Key, for repeats; kept for 48 hours';
COMMENT ON COLUMN staff_requests.digest IS 'SHA-256 of the method, the path and the body: a repeat has the same';
