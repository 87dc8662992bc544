-- What customers pay for freight. A template is replaced whole, and its version counts on; sales refer to it by name.
CREATE TABLE freight_templates (
    name          text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    version       integer NOT NULL CHECK (version > 0),
    currency      text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    charged_by    text NOT NULL CHECK (charged_by IN ('weight', 'pieces', 'amount')),
    cod_fee_minor bigint NOT NULL CHECK (cod_fee_minor >= 0),
    changed_at    timestamptz NOT NULL,
    actor         text NOT NULL
);

CREATE TABLE freight_zones (
    template        text NOT NULL REFERENCES freight_templates ON DELETE CASCADE,
    zone_no         integer NOT NULL CHECK (zone_no >= 0),
    name            text NOT NULL,
    free_from_minor bigint CHECK (free_from_minor > 0),
    PRIMARY KEY (template, zone_no),
    UNIQUE (template, name)
);

CREATE TABLE freight_regions (
    template  text NOT NULL,
    zone_no   integer NOT NULL,
    region_no integer NOT NULL CHECK (region_no >= 0),
    country   text NOT NULL CHECK (country ~ '^([A-Z]{2}|\*)$'),
    province  text NOT NULL,
    city      text NOT NULL,
    PRIMARY KEY (template, zone_no, region_no),
    UNIQUE (template, country, province, city),
    FOREIGN KEY (template, zone_no) REFERENCES freight_zones ON DELETE CASCADE,
    CHECK (country <> '*' OR (province = '' AND city = ''))
);

CREATE TABLE freight_steps (
    template  text NOT NULL,
    zone_no   integer NOT NULL,
    above     bigint NOT NULL CHECK (above >= 0),
    up_to     bigint CHECK (up_to > above),
    per       bigint CHECK (per > 0),
    fee_minor bigint NOT NULL CHECK (fee_minor >= 0),
    PRIMARY KEY (template, zone_no, above),
    FOREIGN KEY (template, zone_no) REFERENCES freight_zones ON DELETE CASCADE,
    CHECK (up_to IS NULL OR per IS NULL)
);

ALTER TABLE sales ADD COLUMN freight_template text REFERENCES freight_templates;
CREATE INDEX sales_freight_template ON sales (freight_template) WHERE freight_template IS NOT NULL;

COMMENT ON TABLE freight_templates IS 'What customers pay for freight; a template is replaced whole';
COMMENT ON COLUMN freight_templates.version IS 'Counts the changes of the template';
COMMENT ON COLUMN freight_templates.charged_by IS 'The quantity of the steps: g, pieces, or the amount of the items in minor units';
COMMENT ON COLUMN freight_templates.cod_fee_minor IS 'Fee for cash on delivery, once per order';
COMMENT ON TABLE freight_zones IS 'Regions of a template that cost the same';
COMMENT ON COLUMN freight_zones.free_from_minor IS 'No fee once the items for an address cost this after discounts; null: never';
COMMENT ON TABLE freight_regions IS 'Regions of zones; the most specific one that has an address counts';
COMMENT ON COLUMN freight_regions.country IS 'ISO 3166 alpha-2, or * for every country that no zone names';
COMMENT ON COLUMN freight_regions.province IS 'Empty: all of the country';
COMMENT ON COLUMN freight_regions.city IS 'Empty: all of the province; without a province: in any of them';
COMMENT ON TABLE freight_steps IS 'Fees of a zone above a quantity and up to another one';
COMMENT ON COLUMN freight_steps.up_to IS 'Null: without end; the last step only';
COMMENT ON COLUMN freight_steps.per IS 'The fee is for each begun so many units above, on top of the step before; null: one fee';
COMMENT ON COLUMN sales.freight_template IS 'What customers pay for freight; null: nothing';
COMMENT ON INDEX sales_freight_template IS 'Finds the sales whose generation a changed template raises';
