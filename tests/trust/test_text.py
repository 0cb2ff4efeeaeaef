"""The tables of a terminal."""

from jaxsr.trust import study, text


def test_results_are_laid_out_as_tables():
  audited = {'flagged': 0.0153, 'invented': 0.0891, 'crossing': 0.311, 'unsupported': None}
  lesion = {'films': 'films', 'condition': 'clean', 'kind': 'nodule', 'size': 4, 'contrast': 0.05}
  found = {
    'audit': {'bicubic': {'films': 3, **audited}, 'empty': {'films': 0}},
    'lesions': [
      {**lesion, 'network': 'HR', 'auc': 0.7641, 'contrast_kept': 1.0},
      {**lesion, 'network': 'bicubic', 'auc': 0.6692, 'contrast_kept': 0.451},
      {**lesion, 'network': study.ABSENT, 'auc': 0.5, 'contrast_kept': 0.0},
    ],
    'readers': [
      {
        'finding': 'Mass',
        'network': 'bicubic',
        'auroc': 0.812,
        'to_hr': -0.02,
        'to_bicubic': 0.0,
        'verdict': 'not shown',
      }
    ],
  }
  assert (
    text.tables(found)
    == """\
invented detail  bicubic
flagged             1.5%
invented energy    0.089
sFRC crossing      0.311
unsupported

AUC, contrast kept: films, clean          HR     bicubic
nodule, 4 px, 5 %                 0.764 1.00  0.669 0.45

reader  network  AUROC   to HR  to bicubic    verdict
Mass    bicubic  0.812  -0.020      +0.000  not shown"""
  )
  assert text.tables({}) == ''
  nothing = text.tables({'lesions': [], 'readers': []})
  assert 'lesions: fewer than 4 patients' in nothing
  assert 'reader: no finding has 20 positive and 20 negative images' in nothing
