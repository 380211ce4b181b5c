// What Grafana's front end makes of panels and their frames: transformations, then overrides, then names and units.
//
//   node see.cjs grafana-data-13 answers.json < questions.json
//
// The library is meant for browsers; at loading it asks for a window and a language, and for nothing else.
'use strict';

globalThis.window ??= { addEventListener() {} };
globalThis.navigator ??= { language: 'en', languages: ['en'] };
const { firstValueFrom } = require('rxjs');
const data = require(process.argv[2]);
const { ranges, panels } = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));

const theme = data.createTheme();
const PROCESS = {
  displayName: data.displayNameOverrideProcessor,
  unit: data.unitOverrideProcessor,
  decimals: data.numberOverrideProcessor,
  min: data.numberOverrideProcessor,
  max: data.numberOverrideProcessor,
  noValue: data.stringOverrideProcessor,
  color: data.identityOverrideProcessor,
  thresholds: data.thresholdsOverrideProcessor,
  mappings: data.valueMappingsOverrideProcessor,
  links: data.dataLinksOverrideProcessor,
};

const transformers = new Map(Object.values(data.standardTransformers).map((each) => [each.id, each]));
data.standardTransformersRegistry.setInit(() =>
  [...transformers.values()].map((each) => {
    const transformation = async () => each; // 13 calls it, 12 takes it as it is
    transformation.operator = each.operator;
    transformation.defaultOptions = each.defaultOptions;
    return { id: each.id, name: each.name, transformation };
  })
);

// A panel's options for its fields are its plugin's; here they are whatever the panel names, taken as they stand.
function registry({ defaults, overrides }) {
  const named = overrides.flatMap((each) => each.properties.map((property) => property.id));
  const own = [...Object.keys(defaults.custom ?? {}), ...named.filter((id) => id.startsWith('custom.')).map((id) => id.slice(7))];
  const standard = Object.entries(PROCESS).map(([id, process]) => ({
    id,
    path: id,
    name: id,
    process,
    settings: { expandTemplateVars: id === 'displayName' },
    shouldApply: () => true,
  }));
  const custom = [...new Set(own)].map((path) => ({
    id: `custom.${path}`,
    path,
    name: path,
    isCustom: true,
    process: data.identityOverrideProcessor,
    shouldApply: () => true,
  }));
  return new data.Registry(() => [...standard, ...custom]);
}

async function see({ panel, frames, variables }) {
  const filled = (text) => text.replace(/\$\{?(\w+)\}?/g, (whole, name) => variables[name] ?? whole);
  const { transformations = [], fieldConfig } = panel;
  const made = frames.map((each) => data.toDataFrame(each));
  const transformed = await firstValueFrom(data.transformDataFrame(transformations, made, { interpolate: filled }));
  const matched = fieldConfig.overrides.map(({ matcher }) => {
    const matches = data.fieldMatchers.get(matcher.id).get(matcher.options);
    return transformed.reduce((sum, frame) => sum + frame.fields.filter((field) => matches(field, frame, transformed)).length, 0);
  });
  const shown = data.applyFieldOverrides({
    data: transformed,
    fieldConfig,
    fieldConfigRegistry: registry(fieldConfig),
    replaceVariables: filled,
    theme,
    timeZone: 'utc',
  });
  const none = data.getDisplayProcessor({ field: { type: data.FieldType.other, config: fieldConfig.defaults }, theme });
  return {
    matched,
    empty: { text: none(null).text, colour: none(null).color },
    frames: shown.map((frame) =>
      frame.fields.map((field) => {
        const last = field.values.findLast((value) => value != null);
        return {
          name: field.name,
          title: data.getFieldDisplayName(field, frame, shown),
          type: field.type,
          unit: field.config.unit ?? '',
          values: field.values.filter((value) => value != null).length,
          last: last === undefined ? '' : data.formattedValueToString(field.display(last)),
          missing: field.display(null).text,
          missing_colour: field.display(null).color,
          links: (field.config.links ?? []).map((link) => link.url),
        };
      })
    ),
  };
}

async function main() {
  const intervals = ranges.map(([seconds, points, least]) => {
    const range = { from: data.dateTime(0), to: data.dateTime(seconds * 1000) };
    return data.rangeUtil.calculateInterval(range, points, least).intervalMs / 1000;
  });
  const seen = [];
  for (const each of panels) {
    seen.push(await see(each));
  }
  const named = panels.map(({ panel }) => panel.timeFrom).filter(Boolean);
  const misread = named.filter((own) => data.rangeUtil.describeTextRange(own).invalid);
  require('node:fs').writeFileSync(process.argv[3], JSON.stringify({ intervals, misread, panels: seen }));
}

main();
