#include "monoid/tools/train/loss_plot.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "monoid/core/atomic_file.h"
#include "monoid/core/error.h"

namespace monoid {
namespace {

constexpr double kWidth = 720, kHeight = 400, kLeft = 56, kRight = 24, kTop = 40, kBottom = 44;
constexpr const char* kColours[] = {"#9bb8d3", "#c0392b", "#2e7d32", "#6a4c93"};

/// An axis from one round number to another, with a handful of round numbers between.
struct Axis {
  double begin, end, step;
  double from, to;  // pixels

  Axis(double low, double high, double from_pixel, double to_pixel) : from(from_pixel), to(to_pixel) {
    if (!(high > low)) high = low + 1;
    const double rough = (high - low) / 6, scale = std::pow(10, std::floor(std::log10(rough)));
    step = scale * (rough / scale < 1.5 ? 1 : rough / scale < 3.5 ? 2 : rough / scale < 7.5 ? 5 : 10);
    begin = std::floor(low / step) * step;
    end = std::ceil(high / step) * step;
  }

  double pixel(double value) const { return from + (value - begin) / (end - begin) * (to - from); }
  int ticks() const { return static_cast<int>(std::lround((end - begin) / step)); }
};

std::string text(double x, double y, const char* anchor, const std::string& content, const char* colour = "#444") {
  std::string escaped;
  for (char c : content) {
    if (c == '<' || c == '&') {
      escaped += c == '<' ? "&lt;" : "&amp;";
    } else {
      escaped += c;
    }
  }
  return str("<text x=\"", x, "\" y=\"", y, "\" text-anchor=\"", anchor, "\" fill=\"", colour, "\">", escaped,
             "</text>\n");
}

std::string line(double x1, double y1, double x2, double y2) {
  return str("<line x1=\"", x1, "\" y1=\"", y1, "\" x2=\"", x2, "\" y2=\"", y2, "\" stroke=\"#e3e3e3\"/>\n");
}

std::string draw(const LossCurve& curve, const Axis& steps, const Axis& losses, const char* colour) {
  if (curve.points.size() == 1) {
    const auto [step, loss] = curve.points.front();
    return str("<circle cx=\"", steps.pixel(step), "\" cy=\"", losses.pixel(loss), "\" r=\"4\" fill=\"", colour,
               "\"/>\n");
  }
  std::string path = "<polyline fill=\"none\" stroke-width=\"1.8\" stroke=\"" + std::string(colour) + "\" points=\"";
  for (const auto& [step, loss] : curve.points) path += str(steps.pixel(step), ',', losses.pixel(loss), ' ');
  return path + "\"/>\n";
}

}  // namespace

std::string loss_plot(const std::string& title, const std::vector<LossCurve>& curves) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double last_step = 0, lowest = kInfinity, highest = -kInfinity;
  for (const LossCurve& curve : curves) {
    for (const auto& [step, loss] : curve.points) {
      last_step = std::max(last_step, step);
      lowest = std::min(lowest, loss);
      highest = std::max(highest, loss);
    }
  }
  check(lowest <= highest, "loss_plot: there is no point to draw; log at least one step");
  const Axis steps(0, last_step, kLeft, kWidth - kRight), losses(lowest, highest, kHeight - kBottom, kTop);

  std::string svg = str("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", kWidth, ' ', kHeight,
                        "\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" "
                        "fill=\"white\"/>\n");
  for (int i = 0; i <= losses.ticks(); ++i) {
    const double value = losses.begin + i * losses.step, y = losses.pixel(value);
    svg += line(kLeft, y, kWidth - kRight, y) + text(kLeft - 8, y + 4, "end", str(std::round(value * 1e6) / 1e6));
  }
  for (int i = 0; i <= steps.ticks(); ++i) {
    const double value = steps.begin + i * steps.step;
    svg += text(steps.pixel(value), kHeight - kBottom + 18, "middle", str(value));
  }
  svg += text(kWidth / 2, kHeight - 8, "middle", "step") + text(kLeft, kTop - 18, "start", title + " (loss in nats)");
  for (size_t i = 0; i < curves.size(); ++i) {
    const char* colour = kColours[i % std::size(kColours)];
    if (!curves[i].points.empty()) svg += draw(curves[i], steps, losses, colour);
    svg += text(kWidth - kRight, kTop + 16 * static_cast<double>(i), "end", curves[i].label, colour);
  }
  return svg + "</svg>\n";
}

void write_loss_plot(const std::filesystem::path& log, const std::filesystem::path& svg, const std::string& title) {
  LossCurve training{"training", {}}, validation{"validation", {}};
  std::ifstream lines(log);
  for (std::string row; std::getline(lines, row);) {
    const nlohmann::json entry = nlohmann::json::parse(row, nullptr, false);
    if (!entry.is_object() || !entry.contains("step")) continue;
    const double step = entry["step"];
    if (entry.contains("train_loss")) training.points.emplace_back(step, entry["train_loss"]);
    if (entry.contains("val_loss")) validation.points.emplace_back(step, entry["val_loss"]);
  }
  if (training.points.empty() && validation.points.empty()) return;
  write_file_atomically(svg, loss_plot(title, {training, validation}));
}

}  // namespace monoid
